"""Forgetting: what is about a person, and what is nowhere to be seen any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    Table,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from services.memory.domain.likeness import marks as marks_of
from services.memory.store.shared import Place, batches
from services.memory.store.versions import to_version, unlink
from services.memory.tables import (
    branches,
    commits,
    contradictions,
    known,
    marks,
    members,
    nodes,
    proposals,
    replies,
    spaces,
    spans,
    tags,
    versions,
)
from services.runtime import clock
from services.runtime.db import Connection

_AT_ONCE = 500


class About(NamedTuple):
    """A version that is about a person."""

    space: str
    version_id: str
    memory_id: str


async def cut_off(connection: Connection, place: Place) -> int:
    """Take a space's names away, so that it is not there any more; until when it was written."""
    await connection.execute(select(spaces.c.space).where(*place.of(spaces)).with_for_update())
    for table in (branches, tags, members, spaces):
        await connection.execute(delete(table).where(*place.of(table)))
    # Only now: who held a name until it was taken away has written, and is seen.
    newest = select(func.max(commits.c.create_time)).where(*place.of(commits))
    last = (await connection.execute(newest)).scalar()
    return max(clock.now(), last or 0)


async def drop(connection: Connection, place: Place, until: int, last_id: str) -> tuple[int, bool]:
    """Delete some of what a space that was cut off had: how many versions, and whether all is gone.

    Args:
        connection: Where.
        place: Which.
        until: What was stored later belongs to a space that began anew.
        last_id: The last memory's id of that time.
    """
    gone = await _some(connection, versions, *place.of(versions), versions.c.stored_time <= until)
    left = gone == _AT_ONCE
    for table, old in _old(until, last_id):
        left |= await _some(connection, table, *place.of(table), old) == _AT_ONCE
    return gone, not left


def _old(until: int, last_id: str) -> list[tuple[Table, ColumnElement[bool]]]:
    return [
        (nodes, nodes.c.stored_time <= until),
        (commits, commits.c.create_time <= until),
        (marks, marks.c.memory_id <= last_id),
        (known, known.c.memory_id <= last_id),
        (contradictions, contradictions.c.memory_id <= last_id),
        (proposals, proposals.c.create_time <= until),
    ]


async def _some(connection: Connection, table: Table, *where: ColumnElement[bool]) -> int:
    key = list(table.primary_key)
    some = select(*key).where(*where).limit(_AT_ONCE)
    return (await connection.execute(delete(table).where(tuple_(*key).in_(some)))).rowcount


async def about(connection: Connection, tenant_id: str, person: str, limit: int) -> list[About]:
    """Some versions that are about a person, of one space."""
    query = select(versions.c.space, versions.c.version_id, versions.c.memory_id).where(
        versions.c.tenant_id == tenant_id, versions.c.person == person
    )
    query = query.order_by(versions.c.space, versions.c.version_id).limit(limit)
    found = [About(*row) for row in await connection.execute(query)]
    return [each for each in found if each.space == found[0].space]


async def bury(
    connection: Connection, place: Place, version_ids: Sequence[str], memory_ids: Collection[str]
) -> None:
    """Leave of versions that trees name nothing but that they were there."""
    these = (*place.of(versions), versions.c.version_id.in_(version_ids))
    gone = (await connection.execute(select(versions).where(*these))).all()
    buried = {"erased": True, "body": "", "person": "", "size": 0}
    await connection.execute(update(versions).where(*these).values(**buried))
    await unlink(connection, place, version_ids)
    await _find_anew(connection, place, memory_ids, gone)


async def remove(
    connection: Connection, place: Place, version_ids: Sequence[str], before: int
) -> None:
    """Delete versions that nothing names, and that nobody stored since."""
    query = select(versions).where(
        *place.of(versions),
        versions.c.version_id.in_(version_ids),
        versions.c.stored_time < before,
    )
    found = (await connection.execute(query.with_for_update())).all()
    gone = [row.version_id for row in found]
    if gone:
        these = (*place.of(versions), versions.c.version_id.in_(gone))
        await connection.execute(delete(versions).where(*these))
        await unlink(connection, place, gone)
        await _find_anew(connection, place, {row.memory_id for row in found}, found)


async def _find_anew(
    connection: Connection, place: Place, memory_ids: Collection[str], gone: Iterable[Row[Any]]
) -> None:
    """Forget what versions that are gone were found by, unless others of the memory are, too."""
    query = select(versions).where(
        *place.of(versions), versions.c.memory_id.in_(memory_ids), versions.c.erased.is_(False)
    )
    left = (await connection.execute(query)).all()
    lost = sorted(_marks(gone) - _marks(left))
    key = (marks.c.mark, marks.c.memory_id)
    for some in batches(lost):
        await connection.execute(delete(marks).where(*place.of(marks), tuple_(*key).in_(some)))
    forgotten = set(memory_ids) - {row.memory_id for row in left}
    await connection.execute(
        delete(known).where(*place.of(known), known.c.memory_id.in_(forgotten))
    )


def _marks(rows: Iterable[Row[Any]]) -> set[tuple[int, str]]:
    return {
        (mark, row.memory_id)
        for row in rows
        if row.body
        for mark in marks_of(to_version(row).content)
    }


async def hush(connection: Connection, place: Place, commit_ids: Collection[str]) -> None:
    """Take away what commits say about themselves."""
    these = (*place.of(commits), commits.c.commit_id.in_(commit_ids))
    await connection.execute(update(commits).where(*these).values(message=""))


async def forget(connection: Connection, tenant_id: str, person: str) -> bool:
    """Forget what a person is in besides versions: proposals, replies, what their commits say.

    Gives True where there may be more of it.
    """
    mine = or_(proposals.c.person == person, proposals.c.space == f"user/{person}")
    more = await _some(connection, proposals, proposals.c.tenant_id == tenant_id, mine)
    kept = (replies.c.tenant_id == tenant_id, replies.c.user_id == person)
    more = max(more, await _some(connection, replies, *kept))
    key = list(commits.primary_key)
    some = select(*key).where(
        commits.c.tenant_id == tenant_id, commits.c.author_id == person, commits.c.message != ""
    )
    these = tuple_(*key).in_(some.limit(_AT_ONCE))
    said = await connection.execute(update(commits).where(these).values(message=""))
    return max(more, said.rowcount) == _AT_ONCE


async def remains(
    connection: Connection, tenant_id: str, person: str, until: int, last_id: str
) -> dict[str, int]:
    """How many rows of each place are still about a person, looked for once more."""
    own = Place(tenant_id, f"user/{person}")
    places: dict[str, tuple[Table, tuple[ColumnElement[bool], ...]]] = {
        "versions": (
            versions,
            (versions.c.tenant_id == tenant_id, versions.c.person == person),
        ),
        "proposals of them": (
            proposals,
            (proposals.c.tenant_id == tenant_id, proposals.c.person == person),
        ),
        "replies": (
            replies,
            (replies.c.tenant_id == tenant_id, replies.c.user_id == person),
        ),
        "messages": (
            commits,
            (
                commits.c.tenant_id == tenant_id,
                commits.c.author_id == person,
                commits.c.message != "",
            ),
        ),
        "own versions": (versions, (*own.of(versions), versions.c.stored_time <= until)),
        "own feed": (
            spans,
            (*own.of(spans), spans.c.erased.is_(False), spans.c.since <= until),
        ),
    }
    for table, old in _old(until, last_id):
        places[f"own {table.name}"] = (table, (*own.of(table), old))
    found = {}
    for name, (place, where) in places.items():
        query = select(func.count()).select_from(place).where(*where)
        found[name] = int((await connection.execute(query)).scalar_one())
    return found
