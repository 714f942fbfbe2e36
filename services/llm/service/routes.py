"""Tenants' routes: made, changed, removed."""

from __future__ import annotations

from dataclasses import replace

from services.llm import store
from services.llm.domain.configuration import (
    DEFAULT_ROUTE,
    MAX_ROUTES,
    Route,
    default_plan,
    name_taken,
    require_etag,
    too_many,
)
from services.llm.domain.routing import Plan
from services.llm.service.catalogue import Catalogue, View
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Connection, Database
from services.runtime.errors import NotFound
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies


class Routes:
    """The routes of every tenant."""

    def __init__(self, database: Database, catalogue: Catalogue, replies: Replies) -> None:
        self._database = database
        self._catalogue = catalogue
        self._replies = replies

    async def get(self, who: Principal, route_id: str) -> Route:
        """One.

        Raises:
            NotFound: There is no such route.
        """
        if route_id == DEFAULT_ROUTE:
            return _built_in(await self._catalogue.view(who.tenant_id))
        async with self._database.read() as connection:
            found = await store.routes.get(connection, who.tenant_id, route_id)
        if found is None:
            raise NotFound.of("route")
        return found

    async def page(self, who: Principal, size: int, before: str | None) -> list[Route]:
        """The built-in one, then the tenant's own, newest first, from behind one of them."""
        page = [] if before else [_built_in(await self._catalogue.view(who.tenant_id))]
        behind = None if before == DEFAULT_ROUTE else before
        async with self._database.read() as connection:
            page += await store.routes.page(connection, who.tenant_id, size - len(page), behind)
        return page

    async def create(
        self, who: Principal, name: str, classes: tuple[str, ...], plan: Plan, call: Repeatable
    ) -> Route:
        """Make one.

        Raises:
            AlreadyExists: NAME_TAKEN, or the idempotency key stands for another request.
            NotFound: UNKNOWN_MODEL.
            ResourceExhausted: The tenant has as many as it can have.
        """
        async with self._database.transaction() as connection:
            kept = await self._replies.find(connection, call)
            if kept is not None:
                first = await store.routes.get(connection, who.tenant_id, kept.decode())
                if first is not None:
                    return first
            view = await self._catalogue.view(who.tenant_id)
            route = Route(
                new_id("rte"), who.tenant_id, name, classes, _known(plan, view), 1, clock.now()
            )
            if await store.routes.count(connection, who.tenant_id) >= MAX_ROUTES:
                raise too_many("routes", "routes", MAX_ROUTES)
            await _require_free(connection, route)
            await store.routes.add(connection, route)
            await self._replies.keep(connection, call, route.route_id.encode())
        self._catalogue.forget(who.tenant_id)
        return route

    async def update(
        self, who: Principal, route_id: str, classes: tuple[str, ...], plan: Plan, etag: str
    ) -> Route:
        """Replace what one does.

        Raises:
            NotFound: There is no such route, or UNKNOWN_MODEL.
            Aborted: It changed since the etag was read.
            AlreadyExists: NAME_TAKEN: another has one of the classes.
        """
        view = await self._catalogue.view(who.tenant_id)
        async with self._database.transaction() as connection:
            old = await store.routes.get(connection, who.tenant_id, route_id, lock=True)
            if old is None:
                raise NotFound.of("route")
            new = replace(old, task_classes=classes, plan=_known(plan, view))
            if new == old:
                return old
            require_etag(etag, old.etag)
            new = replace(new, version=old.version + 1, update_time=clock.now())
            await _require_free(connection, new)
            await store.routes.replace(connection, new)
        self._catalogue.forget(who.tenant_id)
        return new

    async def delete(self, who: Principal, route_id: str) -> None:
        """Remove one.

        Raises:
            NotFound: There is no such route.
        """
        async with self._database.transaction() as connection:
            if not await store.routes.remove(connection, who.tenant_id, route_id):
                raise NotFound.of("route")
        self._catalogue.forget(who.tenant_id)


def _built_in(view: View) -> Route:
    models = [each.model for each in view.served.values()]
    return Route(DEFAULT_ROUTE, "", DEFAULT_ROUTE, (), default_plan(models), 1, 0)


def _known(plan: Plan, view: View) -> Plan:
    """The plan with its models' full names.

    Raises:
        NotFound: UNKNOWN_MODEL.
    """
    named = (replace(each, model=view.find(each.model).model.name) for each in plan.candidates)
    return replace(plan, candidates=tuple(named))


async def _require_free(connection: Connection, route: Route) -> None:
    for other in await store.routes.all_of(connection, route.tenant_id):
        both = set(other.task_classes) & set(route.task_classes)
        if other.route_id != route.route_id and both:
            raise name_taken("route for the class", min(both))
