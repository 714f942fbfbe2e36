"""Erasures: what was asked for, and how far each is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, insert, select, update

from services.memory.domain.values import Erasure
from services.memory.tables import erasures, feed
from services.runtime.db import Connection
from services.runtime.errors import NotFound


async def lock(connection: Connection) -> None:
    """Let nobody else begin one until the transaction ends."""
    await connection.execute(select(feed.c.name).with_for_update())


async def add(connection: Connection, erasure: Erasure) -> None:
    """Keep that one was asked for."""
    await connection.execute(insert(erasures).values(**asdict(erasure), cut_time=0))


async def running(connection: Connection, tenant_id: str, person: str) -> Erasure | None:
    """The one of a person that is under way, if any."""
    query = select(erasures).where(
        erasures.c.tenant_id == tenant_id,
        erasures.c.person == person,
        erasures.c.end_time.is_(None),
    )
    row = (await connection.execute(query)).first()
    return None if row is None else _erasure(row)


async def get(connection: Connection, tenant_id: str, erasure_id: str) -> Erasure:
    """One.

    Raises:
        NotFound: There is none.
    """
    query = select(erasures).where(
        erasures.c.tenant_id == tenant_id, erasures.c.erasure_id == erasure_id
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("erasure")
    return _erasure(row)


async def page(connection: Connection, tenant_id: str, before: str, limit: int) -> list[Erasure]:
    """A tenant's, the newest first, behind one."""
    query = select(erasures).where(erasures.c.tenant_id == tenant_id)
    if before:
        query = query.where(erasures.c.erasure_id < before)
    rows = await connection.execute(query.order_by(erasures.c.erasure_id.desc()).limit(limit))
    return [_erasure(row) for row in rows]


async def under_way(connection: Connection, limit: int) -> list[Erasure]:
    """Those under way, the oldest first."""
    query = select(erasures).where(erasures.c.end_time.is_(None))
    rows = await connection.execute(query.order_by(erasures.c.erasure_id).limit(limit))
    return [_erasure(row) for row in rows]


async def cut_time(connection: Connection, erasure: Erasure) -> int | None:
    """Until when the person's own space is cut off, 0 where it is not; None where all is done.

    Held until the commit: what a process knew of it from before may be another's work by now.
    """
    query = select(erasures.c.cut_time, erasures.c.end_time).where(
        erasures.c.tenant_id == erasure.tenant_id, erasures.c.erasure_id == erasure.erasure_id
    )
    row = (await connection.execute(query.with_for_update())).one()
    return None if row.end_time is not None else int(row.cut_time)


async def count(connection: Connection, erasure: Erasure, gone: int) -> None:
    """Count versions that were erased."""
    await change(connection, erasure, erased_versions=erasures.c.erased_versions + gone)


async def change(connection: Connection, erasure: Erasure, **values: Any) -> None:
    """Keep how far one is."""
    same = (
        erasures.c.tenant_id == erasure.tenant_id,
        erasures.c.erasure_id == erasure.erasure_id,
    )
    await connection.execute(update(erasures).where(*same).values(**values))


def _erasure(row: Row[Any]) -> Erasure:
    return Erasure(
        erasure_id=row.erasure_id,
        tenant_id=row.tenant_id,
        person=row.person,
        requested_by=row.requested_by,
        create_time=row.create_time,
        erased_versions=row.erased_versions,
        verified_places=row.verified_places,
        end_time=row.end_time,
    )
