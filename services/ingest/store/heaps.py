"""Heaps: bytes or passages that belong together, filled and emptied in steps.

Whoever fills a heap owns it; when that process ends, nobody will ever name the heap, and it is
emptied. One that is kept belongs to the document or upload that names it, which says when it goes.
"""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import and_, delete, insert, select, tuple_, update

from services.ingest.tables import heaps, owners, parts, passages
from services.runtime.db import Connection
from services.runtime.ids import new_id

_ROWS_AT_ONCE = 500
_PARTS_AT_ONCE = 16


class _State(IntEnum):
    FILLING = 1
    KEPT = 2
    DOOMED = 3


async def begin(connection: Connection, tenant_id: str, owner: str) -> str:
    """A new, empty heap that a process fills."""
    heap_id = new_id("hep")
    values = {"heap_id": heap_id, "tenant_id": tenant_id, "owner": owner}
    await connection.execute(insert(heaps).values(**values, state=int(_State.FILLING)))
    return heap_id


async def keep(connection: Connection, tenant_id: str, heap_id: str) -> bool:
    """Keep a heap, in the transaction of what names it; False where it was given up."""
    kept = await connection.execute(
        update(heaps)
        .where(
            heaps.c.heap_id == heap_id,
            heaps.c.tenant_id == tenant_id,
            heaps.c.state != int(_State.DOOMED),
        )
        .values(state=int(_State.KEPT), owner="")
    )
    return bool(kept.rowcount)


async def doom(connection: Connection, tenant_id: str, *heap_ids: str) -> None:
    """Let go of heaps; they are emptied by and by. An empty id is none."""
    some = [each for each in heap_ids if each]
    if some:
        mine = and_(heaps.c.heap_id.in_(some), heaps.c.tenant_id == tenant_id)
        await connection.execute(update(heaps).where(mine).values(state=int(_State.DOOMED)))


async def put(
    connection: Connection, tenant_id: str, heap_id: str, start: int, data: bytes
) -> None:
    """Add bytes to a heap, which follow on those before them."""
    await connection.execute(
        insert(parts).values(heap_id=heap_id, start=start, tenant_id=tenant_id, data=data)
    )


async def next_part(
    connection: Connection, tenant_id: str, heap_id: str, start: int
) -> bytes | None:
    """The bytes of a heap that begin there, as many as were put at once; None at its end."""
    return (
        await connection.execute(
            select(parts.c.data).where(
                parts.c.heap_id == heap_id, parts.c.start == start, parts.c.tenant_id == tenant_id
            )
        )
    ).scalar_one_or_none()


async def purge(connection: Connection, living: str) -> bool:
    """Empty some of a heap that nobody has; True where there may be more.

    Args:
        connection: Of all tenants.
        living: A process that is alive, whatever the table of them says.
    """
    lost = and_(
        heaps.c.state == int(_State.FILLING),
        heaps.c.owner.not_in(select(owners.c.owner)),
        heaps.c.owner != living,
    )
    doomed = heaps.c.state == int(_State.DOOMED)
    for which in (doomed, lost):
        some = select(heaps.c.heap_id).where(which).limit(1).with_for_update(skip_locked=True)
        heap_id = (await connection.execute(some)).scalar_one_or_none()
        if heap_id is not None:
            break
    else:
        return False
    left = False
    for table, most in ((parts, _PARTS_AT_ONCE), (passages, _ROWS_AT_ONCE)):
        key = list(table.primary_key)
        rows = select(*key).where(table.c.heap_id == heap_id).limit(most)
        gone = await connection.execute(delete(table).where(tuple_(*key).in_(rows)))
        left = left or gone.rowcount == most
    if not left:
        await connection.execute(delete(heaps).where(heaps.c.heap_id == heap_id))
    return True
