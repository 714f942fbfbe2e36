"""How passages are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, insert, select

from services.ingest.domain.documents import Document
from services.ingest.domain.passages import Kind, Passage, Placed
from services.ingest.store import documents as kept_documents
from services.ingest.tables import documents, passages
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.ids import new_id


async def add(
    connection: Connection, document: Document, heap_id: str, first: int, some: Sequence[Passage]
) -> None:
    """Add a document's next passages to a heap.

    Args:
        connection: Of its tenant.
        document: Whose they are.
        heap_id: Where they go.
        first: The place of the first of them.
        some: They.
    """
    rows = [
        {
            "heap_id": heap_id,
            "place": place,
            "tenant_id": document.tenant_id,
            "document_id": document.document_id,
            "passage_id": new_id("psg"),
            "text": each.text,
            "size": len(each.text.encode()),
            "kind": int(each.kind),
            "headings": list(each.headings),
            "page": each.page,
            "start": each.start,
            "end": each.end,
        }
        for place, each in enumerate(some, first)
    ]
    if rows:
        await connection.execute(insert(passages), rows)


async def sizes(
    connection: Connection, document: Document, after: int, limit: int
) -> list[tuple[int, int]]:
    """The places after one, in order, and how many bytes the texts there have."""
    query = (
        select(passages.c.place, passages.c.size)
        .where(
            passages.c.heap_id == document.passages_heap,
            passages.c.tenant_id == document.tenant_id,
            passages.c.place > after,
        )
        .order_by(passages.c.place)
        .limit(limit)
    )
    return [(row.place, row.size) for row in await connection.execute(query)]


async def span(connection: Connection, document: Document, first: int, last: int) -> list[Placed]:
    """A document's passages from one place to another, in order."""
    query = (
        select(passages)
        .where(
            passages.c.heap_id == document.passages_heap,
            passages.c.tenant_id == document.tenant_id,
            passages.c.place.between(first, last),
        )
        .order_by(passages.c.place)
    )
    return [_placed(row) for row in await connection.execute(query)]


async def by_id(connection: Connection, who: Principal, passage_ids: Sequence[str]) -> list[Placed]:
    """Those of some passages that a caller finds, of documents' newest revisions."""
    query = select(passages).join(
        documents,
        and_(
            documents.c.document_id == passages.c.document_id,
            documents.c.passages_heap == passages.c.heap_id,
        ),
    )
    query = query.where(
        passages.c.passage_id.in_(passage_ids),
        passages.c.tenant_id == who.tenant_id,
        kept_documents.visible(who),
    )
    return [_placed(row) for row in await connection.execute(query)]


def _placed(row: Row[Any]) -> Placed:
    passage = Passage(
        text=row.text,
        kind=Kind(row.kind),
        headings=tuple(row.headings),
        page=row.page,
        start=row.start,
        end=row.end,
    )
    return Placed(row.passage_id, row.document_id, row.place, passage)
