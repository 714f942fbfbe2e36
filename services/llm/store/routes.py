"""Routes."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.llm.domain.configuration import Route, name_taken
from services.llm.domain.routing import Plan
from services.llm.tables import routes
from services.runtime.db import Connection

_PLAN = TypeAdapter(Plan)


async def add(connection: Connection, route: Route) -> None:
    """Keep a new route.

    Raises:
        AlreadyExists: NAME_TAKEN. The transaction cannot go on.
    """
    try:
        await connection.execute(insert(routes), _columns(route))
    except IntegrityError as error:
        raise name_taken("route", route.name) from error


async def replace(connection: Connection, route: Route) -> None:
    """Keep a route's next version."""
    same = routes.c.route_id == route.route_id
    await connection.execute(update(routes).where(same).values(_columns(route)))


async def get(
    connection: Connection, tenant_id: str, route_id: str, *, lock: bool = False
) -> Route | None:
    """A tenant's route; locked, it stays as it is until the transaction ends."""
    query = select(routes).where(routes.c.tenant_id == tenant_id, routes.c.route_id == route_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else _route(row)


async def all_of(connection: Connection, tenant_id: str) -> list[Route]:
    """Every route of a tenant, oldest first."""
    query = select(routes).where(routes.c.tenant_id == tenant_id).order_by(routes.c.route_id)
    return [_route(row) for row in await connection.execute(query)]


async def page(
    connection: Connection, tenant_id: str, size: int, before: str | None
) -> list[Route]:
    """A tenant's routes, newest first, from behind one."""
    query = select(routes).where(routes.c.tenant_id == tenant_id)
    if before:
        query = query.where(routes.c.route_id < before)
    found = await connection.execute(query.order_by(routes.c.route_id.desc()).limit(size))
    return [_route(row) for row in found]


async def count(connection: Connection, tenant_id: str) -> int:
    """How many a tenant has."""
    query = select(func.count()).where(routes.c.tenant_id == tenant_id)
    return int((await connection.execute(query)).scalar_one())


async def remove(connection: Connection, tenant_id: str, route_id: str) -> bool:
    """Forget a route; whether it was there."""
    gone = await connection.execute(
        delete(routes).where(routes.c.tenant_id == tenant_id, routes.c.route_id == route_id)
    )
    return bool(gone.rowcount)


def _columns(route: Route) -> dict[str, Any]:
    return {
        "route_id": route.route_id,
        "tenant_id": route.tenant_id,
        "name": route.name,
        "task_classes": list(route.task_classes),
        "plan": _PLAN.dump_python(route.plan, mode="json"),
        "version": route.version,
        "update_time": route.update_time,
    }


def _route(row: Row[Any]) -> Route:
    return Route(
        route_id=row.route_id,
        tenant_id=row.tenant_id,
        name=row.name,
        task_classes=tuple(row.task_classes),
        plan=_PLAN.validate_python(row.plan),
        version=row.version,
        update_time=row.update_time,
    )
