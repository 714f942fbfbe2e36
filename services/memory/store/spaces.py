"""Spaces: what they keep, and who may read them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql import exists

from services.memory.domain.values import MAIN, Policy, Space
from services.memory.store.shared import Place, add
from services.memory.tables import branches, commits, members, spaces
from services.runtime.db import Connection
from services.runtime.errors import NotFound


def readable(table: Table, user_id: str) -> ColumnElement[bool]:
    """The rows of a table with spaces that a user may read; without one, of all.

    The spaces must be joined to the table.
    """
    if not user_id:
        return table.c.space == table.c.space
    member = exists().where(
        members.c.tenant_id == table.c.tenant_id,
        members.c.space == table.c.space,
        members.c.user_id == user_id,
    )
    shared = and_(table.c.space.not_like("user/%"), or_(spaces.c.guarded.is_(False), member))
    return or_(table.c.space == f"user/{user_id}", shared)


async def get(connection: Connection, place: Place, user_id: str, *, lock: bool = False) -> Space:
    """A space that a user may read; without one, any.

    Args:
        connection: Where.
        place: Which.
        user_id: Who asks.
        lock: Keep others from changing what it is until the transaction ends.

    Raises:
        NotFound: It is not there, or not to be read: the two look the same.
    """
    query = _joined().where(*place.of(spaces), readable(spaces, user_id))
    if lock:
        query = query.with_for_update(of=spaces)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("space")
    chosen = select(members.c.user_id).where(*place.of(members)).order_by(members.c.user_id)
    return _space(row, tuple((await connection.execute(chosen)).scalars()) if row.guarded else ())


async def page(
    connection: Connection, tenant_id: str, user_id: str, after: str, limit: int
) -> list[Space]:
    """Spaces that a user may read, by name, behind one."""
    query = _joined().where(
        spaces.c.tenant_id == tenant_id, readable(spaces, user_id), spaces.c.space > after
    )
    rows = (await connection.execute(query.order_by(spaces.c.space).limit(limit))).all()
    guarded = [row.space for row in rows if row.guarded]
    of: dict[str, list[str]] = {}
    if guarded:
        chosen = select(members.c.space, members.c.user_id).where(
            members.c.tenant_id == tenant_id, members.c.space.in_(guarded)
        )
        for row in await connection.execute(chosen.order_by(members.c.user_id)):
            of.setdefault(row.space, []).append(row.user_id)
    return [_space(row, tuple(of.get(row.space, ()))) for row in rows]


async def count(connection: Connection, tenant_id: str) -> int:
    """How many a tenant has."""
    query = select(func.count()).select_from(spaces).where(spaces.c.tenant_id == tenant_id)
    return (await connection.execute(query)).scalar_one()


async def begin(connection: Connection, place: Place, now: int) -> None:
    """Make a space and its `main`, if they are not there."""
    values = {
        **place.values,
        "guarded": False,
        "review": False,
        "create_time": now,
        "etag": 1,
        "swept_time": now,
    }
    await add(connection, spaces, [values])
    main = {**place.values, "name": MAIN, "commit_id": "", "create_time": now}
    await add(connection, branches, [main])


async def change(
    connection: Connection, place: Place, policy: Policy | None, chosen: tuple[str, ...] | None
) -> None:
    """Change what a space keeps and who may read it; None is as before."""
    values: dict[str, Any] = {"etag": spaces.c.etag + 1}
    if policy is not None:
        values |= {
            "keep_versions": policy.keep_versions,
            "half_life": policy.half_life,
            "review": policy.review,
            "merge_likeness": policy.merge_likeness,
        }
    if chosen is not None:
        values["guarded"] = bool(chosen)
        await connection.execute(delete(members).where(*place.of(members)))
        rows = [{**place.values, "user_id": each} for each in sorted(set(chosen))]
        if rows:
            await connection.execute(insert(members), rows)
    await connection.execute(update(spaces).where(*place.of(spaces)).values(**values))


def _joined() -> Select[Any]:
    main = and_(
        branches.c.tenant_id == spaces.c.tenant_id,
        branches.c.space == spaces.c.space,
        branches.c.name == MAIN,
    )
    head = and_(
        commits.c.tenant_id == branches.c.tenant_id,
        commits.c.space == branches.c.space,
        commits.c.commit_id == branches.c.commit_id,
    )
    return select(spaces, branches.c.commit_id, commits.c.count).select_from(
        spaces.outerjoin(branches, main).outerjoin(commits, head)
    )


def _space(row: Row[Any], chosen: tuple[str, ...]) -> Space:
    return Space(
        space=row.space,
        policy=Policy(row.keep_versions, row.half_life, row.review, row.merge_likeness),
        members=chosen,
        create_time=row.create_time,
        etag=row.etag,
        head=row.commit_id or "",
        memory_count=row._mapping["count"] or 0,
    )
