"""How the feed of changes is kept.

Each transaction that changes what is found takes the next position as the last thing it does, and
with it the lock of the row that counts them, until its commit. So positions are committed in their
order, and whoever sees one has seen all before it.
"""

from __future__ import annotations

from sqlalchemy import select, update

from services.ingest.domain.documents import Document
from services.ingest.store.documents import document_of
from services.ingest.tables import documents, feed, feed_ends
from services.runtime.db import Connection, upsert


async def tell(connection: Connection, *changed: Document) -> None:
    """Let the index know that documents changed or are gone; the last step of a transaction.

    One that never had passages is nothing to it.
    """
    some = [each for each in changed if each.revision]
    if not some:
        return
    last = (
        await connection.execute(
            update(feed_ends)
            .values(position=feed_ends.c.position + len(some))
            .returning(feed_ends.c.position)
        )
    ).scalar_one()
    for position, each in enumerate(some, last - len(some) + 1):
        values = {"document_id": each.document_id, "tenant_id": each.tenant_id}
        await connection.execute(
            upsert(connection.dialect.name, feed)
            .values(**values, position=position)
            .on_conflict_do_update(index_elements=["document_id"], set_={"position": position})
        )


async def newest(connection: Connection) -> int:
    """The newest position there is, of any tenant."""
    return int((await connection.execute(select(feed_ends.c.position))).scalar_one())


async def after(
    connection: Connection, tenant_id: str, position: int, limit: int
) -> list[tuple[int, str, str, Document | None]]:
    """Changes after a position: each with its tenant and document, which is None where it is gone.

    Args:
        connection: Of the tenant, or of all.
        tenant_id: Whose; empty for all.
        position: The last that is known.
        limit: At most so many.
    """
    query = select(feed).where(feed.c.position > position)
    if tenant_id:
        query = query.where(feed.c.tenant_id == tenant_id)
    found = (await connection.execute(query.order_by(feed.c.position).limit(limit))).all()
    ids = [row.document_id for row in found]
    rows = await connection.execute(select(documents).where(documents.c.document_id.in_(ids)))
    there = {row.document_id: document_of(row) for row in rows}
    return [
        (row.position, row.tenant_id, row.document_id, there.get(row.document_id)) for row in found
    ]
