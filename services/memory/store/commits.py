"""Commits, and the names that lead to them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, Table, and_, delete, func, insert, literal, select, update

from services.memory.domain.values import MAIN, Commit, Ref
from services.memory.store.shared import Place, batches
from services.memory.tables import branches, commits, tags
from services.runtime.db import Connection
from services.runtime.errors import Aborted, NotFound

_ORDER = commits.c.create_time.desc()


async def branch(connection: Connection, place: Place, name: str, *, lock: bool = False) -> Ref:
    """A branch; locked, nobody else moves it until the transaction ends.

    Raises:
        NotFound: There is none.
    """
    return await _ref(connection, branches, place, name, lock=lock)


async def tag(connection: Connection, place: Place, name: str) -> Ref:
    """A tag.

    Raises:
        NotFound: There is none.
    """
    return await _ref(connection, tags, place, name)


async def _ref(
    connection: Connection, table: Table, place: Place, name: str, *, lock: bool = False
) -> Ref:
    found = await named(connection, table, place, name, lock=lock)
    if found is None:
        raise NotFound.of(_kind(table))
    return found


async def named(
    connection: Connection, table: Table, place: Place, name: str, *, lock: bool = False
) -> Ref | None:
    """A branch or a tag; None where there is none."""
    query = select(table).where(*place.of(table), table.c.name == name)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else Ref(row.name, row.commit_id, row.create_time)


async def names(
    connection: Connection, table: Table, place: Place, after: str, limit: int
) -> list[Ref]:
    """Branches or tags by name, behind one."""
    query = select(table).where(*place.of(table), table.c.name > after).order_by(table.c.name)
    rows = await connection.execute(query.limit(limit))
    return [Ref(row.name, row.commit_id, row.create_time) for row in rows]


async def count_names(connection: Connection, table: Table, place: Place) -> int:
    """How many there are."""
    query = select(func.count()).select_from(table).where(*place.of(table))
    return (await connection.execute(query)).scalar_one()


async def add_name(connection: Connection, table: Table, place: Place, ref: Ref) -> None:
    """Keep a branch or a tag."""
    await connection.execute(insert(table).values(**place.values, **asdict(ref)))


async def delete_name(connection: Connection, table: Table, place: Place, name: str) -> None:
    """Let go of a branch or a tag.

    Raises:
        NotFound: There is none.
    """
    gone = await connection.execute(delete(table).where(*place.of(table), table.c.name == name))
    if not gone.rowcount:
        raise NotFound.of(_kind(table))


async def move(connection: Connection, place: Place, name: str, before: str, after: str) -> None:
    """Move a branch from the commit at which it was read.

    Raises:
        Aborted: It is not there any more.
    """
    same = (*place.of(branches), branches.c.name == name, branches.c.commit_id == before)
    moved = await connection.execute(update(branches).where(*same).values(commit_id=after))
    if not moved.rowcount:
        raise stale(await branch(connection, place, name))


def stale(ref: Ref) -> Aborted:
    """The error for a branch that is elsewhere."""
    return Aborted(
        f"The branch is at {ref.commit_id or 'its beginning'}. Read it and try again.",
        reason="STALE_HEAD",
        metadata={"head": ref.commit_id},
    )


async def add(connection: Connection, place: Place, commit: Commit) -> None:
    """Keep a commit."""
    parent, merged = (*commit.parents, "", "")[:2]
    values = {key: value for key, value in asdict(commit).items() if key != "parents"}
    values |= {"parent_id": parent, "merged_id": merged, "tenant_id": place.tenant_id}
    await connection.execute(insert(commits).values(**values))


async def get(connection: Connection, place: Place, commit_id: str) -> Commit:
    """A commit.

    Raises:
        NotFound: There is none.
    """
    query = select(commits).where(*place.of(commits), commits.c.commit_id == commit_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("commit")
    return to_commit(row)


async def some(
    connection: Connection, place: Place, commit_ids: Collection[str]
) -> dict[str, Commit]:
    """Commits by id, those that are there."""
    found = {}
    for each in batches(commit_ids):
        query = select(commits).where(*place.of(commits), commits.c.commit_id.in_(each))
        found.update({row.commit_id: to_commit(row) for row in await connection.execute(query)})
    return found


async def at_time(connection: Connection, place: Place, moment: int) -> Commit | None:
    """The newest commit of `main` at a moment; None before the first."""
    query = select(commits).where(
        *place.of(commits), commits.c.branch == MAIN, commits.c.create_time <= moment
    )
    row = (await connection.execute(query.order_by(_ORDER).limit(1))).one_or_none()
    return None if row is None else to_commit(row)


async def line(connection: Connection, place: Place, start: str, limit: int) -> list[Commit]:
    """A commit and those before it, along first parents, the newest first."""
    first = select(commits, literal(1).label("place")).where(
        *place.of(commits), commits.c.commit_id == start
    )
    chain = first.cte("chain", recursive=True)
    before = and_(
        commits.c.tenant_id == chain.c.tenant_id,
        commits.c.space == chain.c.space,
        commits.c.commit_id == chain.c.parent_id,
    )
    chain = chain.union_all(
        select(commits, chain.c.place + 1).join(chain, before).where(chain.c.place < limit)
    )
    rows = await connection.execute(select(chain).order_by(chain.c.place))
    return [to_commit(row) for row in rows]


def to_commit(row: Row[Any]) -> Commit:
    """A commit as it was kept."""
    return Commit(
        space=row.space,
        branch=row.branch,
        parents=tuple(each for each in (row.parent_id, row.merged_id) if each),
        root=row.root,
        count=row._mapping["count"],
        message=row.message,
        author_id=row.author_id,
        create_time=row.create_time,
        added=row.added,
        changed=row.changed,
        removed=row.removed,
        pruned=row.pruned,
        commit_id=row.commit_id,
    )


def _kind(table: Table) -> str:
    return "branch" if table is branches else "tag"
