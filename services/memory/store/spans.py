"""For which time each version is the current one on `main`: the feed, and reading by time.

Places in the feed come from one row that each change takes and holds until it is committed. So the
places that a reader sees have no gaps that are filled later, on PostgreSQL, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, insert, select, update

from services.memory.domain.values import Commit, Span
from services.memory.store.shared import Place, batches
from services.memory.store.spaces import readable
from services.memory.tables import feed, spaces, spans
from services.runtime.db import Connection


async def position(connection: Connection) -> int:
    """The newest position there is."""
    return int((await connection.execute(select(feed.c.position))).scalar_one())


async def _take(connection: Connection, count: int) -> int:
    """So many positions: the one before the first. Whoever comes next waits for our commit."""
    take = update(feed).values(position=feed.c.position + count).returning(feed.c.position)
    return int((await connection.execute(take)).scalar_one()) - count


async def turn(
    connection: Connection,
    place: Place,
    commit: Commit,
    ended: Collection[str],
    begun: Sequence[tuple[str, str]],
) -> None:
    """Follow a commit of `main`. The last of a transaction, for it keeps other writers waiting.

    Args:
        connection: Where.
        place: The space.
        commit: The commit.
        ended: The memories whose version is not current any more.
        begun: Memories and the versions that are current from now on.
    """
    number = await _take(connection, len(ended) + len(begun))
    end = (
        update(spans)
        .where(*place.of(spans), spans.c.memory_id == bindparam("of"), spans.c.until.is_(None))
        .values(until=commit.create_time, until_commit=commit.commit_id, position=bindparam("at"))
    )
    ending = [{"of": each, "at": number + n} for n, each in enumerate(sorted(ended), 1)]
    for some in batches(ending):
        await connection.execute(end, some)
    number += len(ended)
    rows = [
        {
            **place.values,
            "memory_id": memory_id,
            "since": commit.create_time,
            "version_id": version_id,
            "until": None,
            "since_commit": commit.commit_id,
            "until_commit": "",
            "position": number + n,
            "erased": False,
        }
        for n, (memory_id, version_id) in enumerate(sorted(begun), 1)
    ]
    for few in batches(rows):
        await connection.execute(insert(spans), few)


async def erase(connection: Connection, found: Iterable[Span]) -> None:
    """Tell readers of the feed to forget versions."""
    gone = sorted(found, key=lambda span: span.position)
    number = await _take(connection, len(gone))
    change = (
        update(spans)
        .where(
            spans.c.tenant_id == bindparam("tenant"),
            spans.c.space == bindparam("of_space"),
            spans.c.memory_id == bindparam("of"),
            spans.c.since == bindparam("from"),
        )
        .values(erased=True, position=bindparam("at"))
    )
    rows = [
        {
            "tenant": each.tenant_id,
            "of_space": each.space,
            "of": each.memory_id,
            "from": each.since,
            "at": number + n,
        }
        for n, each in enumerate(gone, 1)
    ]
    for some in batches(rows):
        await connection.execute(change, some)


async def after(
    connection: Connection, tenant_id: str, user_id: str, position: int, limit: int
) -> list[Span]:
    """The changes behind a position, of a tenant or of all, of spaces that a user may read."""
    query = select(spans).where(spans.c.position > position)
    if tenant_id:
        query = query.where(spans.c.tenant_id == tenant_id)
    if user_id:
        same = and_(spaces.c.tenant_id == spans.c.tenant_id, spaces.c.space == spans.c.space)
        query = query.join(spaces, same).where(readable(spans, user_id))
    return await _read(connection, query.order_by(spans.c.position).limit(limit))


async def newest(connection: Connection, place: Place, limit: int) -> list[Span]:
    """The newest changes of a space, the newest first."""
    query = select(spans).where(*place.of(spans), spans.c.erased.is_(False))
    return await _read(connection, query.order_by(spans.c.position.desc()).limit(limit))


async def of_memory(
    connection: Connection, place: Place, memory_id: str, before: int, limit: int
) -> list[Span]:
    """When the versions of a memory were current, the newest first, of those before a moment."""
    query = select(spans).where(
        *place.of(spans), spans.c.memory_id == memory_id, spans.c.since < before
    )
    return await _read(connection, query.order_by(spans.c.since.desc()).limit(limit))


async def of_versions(
    connection: Connection, place: Place, version_ids: Collection[str], memory_ids: Collection[str]
) -> list[Span]:
    """When versions were current that are not erased yet."""
    query = select(spans).where(
        *place.of(spans),
        spans.c.memory_id.in_(memory_ids),
        spans.c.version_id.in_(version_ids),
        spans.c.erased.is_(False),
    )
    return await _read(connection, query)


async def left_in(connection: Connection, place: Place, until: int, limit: int) -> list[Span]:
    """Changes of a space from before a moment that are not erased yet."""
    query = select(spans).where(*place.of(spans), spans.c.erased.is_(False), spans.c.since <= until)
    return await _read(connection, query.order_by(spans.c.position).limit(limit))


async def _read(connection: Connection, query: Select[Any]) -> list[Span]:
    return [_span(row) for row in await connection.execute(query)]


def _span(row: Row[Any]) -> Span:
    return Span(
        tenant_id=row.tenant_id,
        space=row.space,
        memory_id=row.memory_id,
        version_id=row.version_id,
        since=row.since,
        until=row.until,
        since_commit=row.since_commit,
        until_commit=row.until_commit,
        position=row.position,
        erased=row.erased,
    )
