"""What a space has that nothing shows any more."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import and_, delete, or_, select, update

from services.memory.domain.history import Made
from services.memory.store.shared import Place, batches
from services.memory.tables import branches, commits, nodes, spaces, tags, versions
from services.runtime.db import Connection


class Due(NamedTuple):
    """A space that is to be swept, and how long it keeps what is nowhere current."""

    place: Place
    keep: int | None
    swept_time: int


class Name(NamedTuple):
    """A branch or a tag, and where it leads."""

    kind: str
    name: str
    create_time: int
    commit_id: str


async def due(connection: Connection, before: int, limit: int) -> list[Due]:
    """Spaces that were swept before a moment and keep versions for a time, or lost a name."""
    lost = spaces.c.swept_time == 0
    old = and_(spaces.c.keep_versions.is_not(None), spaces.c.swept_time < before)
    query = select(spaces).where(or_(lost, old)).order_by(spaces.c.swept_time).limit(limit)
    return [
        Due(Place(row.tenant_id, row.space), row.keep_versions, row.swept_time)
        for row in await connection.execute(query)
    ]


async def take(connection: Connection, one: Due, now: int) -> bool:
    """Take a space to sweep; False where another process did."""
    same = (*one.place.of(spaces), spaces.c.swept_time == one.swept_time)
    return bool(
        (await connection.execute(update(spaces).where(*same).values(swept_time=now))).rowcount
    )


async def ask(connection: Connection, place: Place) -> None:
    """Let a space be swept soon: a name of it is gone."""
    await connection.execute(update(spaces).where(*place.of(spaces)).values(swept_time=0))


async def names(connection: Connection, place: Place) -> list[Name]:
    """Every branch and tag."""
    found = []
    for table in (branches, tags):
        rows = await connection.execute(select(table).where(*place.of(table)))
        found += [Name(table.name, row.name, row.create_time, row.commit_id) for row in rows]
    return found


async def history(connection: Connection, place: Place, after: str, limit: int) -> list[Made]:
    """Commits by id, behind one: when they were made, and from what."""
    query = select(commits).where(*place.of(commits), commits.c.commit_id > after)
    rows = await connection.execute(query.order_by(commits.c.commit_id).limit(limit))
    return [
        Made(
            row.commit_id,
            tuple(each for each in (row.parent_id, row.merged_id) if each),
            row.create_time,
            row.root,
            row.pruned,
        )
        for row in rows
    ]


async def prune(connection: Connection, place: Place, commit_ids: Collection[str]) -> None:
    """Say of commits that what they held is not kept any more."""
    for some in batches(commit_ids):
        these = (*place.of(commits), commits.c.commit_id.in_(some))
        await connection.execute(update(commits).where(*these).values(pruned=True))


async def remove_commits(connection: Connection, place: Place, commit_ids: Collection[str]) -> None:
    """Delete commits that no name leads to."""
    for some in batches(commit_ids):
        these = (*place.of(commits), commits.c.commit_id.in_(some))
        await connection.execute(delete(commits).where(*these))


async def old_nodes(
    connection: Connection, place: Place, after: bytes, before: int, limit: int
) -> list[bytes]:
    """Nodes by name, behind one, that nobody stored since a moment."""
    query = select(nodes.c.name).where(
        *place.of(nodes), nodes.c.name > after, nodes.c.stored_time < before
    )
    rows = await connection.execute(query.order_by(nodes.c.name).limit(limit))
    return list(rows.scalars())


async def remove_nodes(
    connection: Connection, place: Place, names: Collection[bytes], before: int
) -> None:
    """Delete nodes, but for those that somebody stored again since a moment."""
    these = (*place.of(nodes), nodes.c.name.in_(names), nodes.c.stored_time < before)
    await connection.execute(delete(nodes).where(*these))


async def old_versions(
    connection: Connection, place: Place, after: str, before: int, limit: int
) -> list[tuple[str, str]]:
    """Versions by id, behind one, that nobody stored since a moment, with their memories."""
    query = select(versions.c.version_id, versions.c.memory_id).where(
        *place.of(versions), versions.c.version_id > after, versions.c.stored_time < before
    )
    rows = await connection.execute(query.order_by(versions.c.version_id).limit(limit))
    return [(row.version_id, row.memory_id) for row in rows]
