"""Defects by which one tenant sees what is another's, or that it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy import select, update

from tests.faults.planting import Plant, module, replace


def session_of_anybody() -> None:
    """The tenant's filter is missing in one query."""
    store = module("history.store")
    from services.history.tables import sessions

    async def get_session(connection: Any, tenant_id: str, session_id: str) -> Any:
        query = select(sessions).where(sessions.c.session_id == session_id)
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise store.NotFound.of("session")
        return store._session(row)

    replace(store, "get_session", lambda _: get_session)


def sessions_of_all() -> None:
    """The tenant's filter is missing in a list, from its second page on."""
    store = module("history.store")
    from services.history.tables import sessions

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def list_sessions(connection: Any, tenant_id: str, before: Any, limit: int) -> Any:
            if before is None:
                return await original(connection, tenant_id, before, limit)
            query = select(sessions).order_by(sessions.c.create_time).limit(limit)
            return [store._session(row) for row in await connection.execute(query)]

        return list_sessions

    replace(store, "list_sessions", make)


def runs_cached_without_tenant() -> None:
    """A cache knows runs by their ids alone."""
    from services.agents.service import AgentsService

    cache: dict[str, Any] = {}

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def run(self: Any, tenant_id: str, run_id: str) -> Any:
            if run_id not in cache:
                cache[run_id] = await original(self, tenant_id, run_id)
            return cache[run_id]

        return run

    replace(AgentsService, "run", make)


def agent_is_forbidden() -> None:
    """What is another's is forbidden, what is nobody's is not found."""
    store = module("agents.store")
    from services.agents.tables import agents
    from services.runtime.errors import PermissionDenied

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def get_agent(connection: Any, tenant_id: str, agent_id: str) -> Any:
            query = select(agents.c.tenant_id).where(agents.c.agent_id == agent_id)
            owner = (await connection.execute(query)).scalar_one_or_none()
            if owner not in (None, tenant_id):
                raise PermissionDenied("This agent is not yours.")
            return await original(connection, tenant_id, agent_id)

        return get_agent

    replace(store, "get_agent", make)


def keys_of_anybody_are_deleted() -> None:
    """A write finds its row by the id alone."""
    api_keys = module("identity.store.api_keys")

    async def revoke(connection: Any, tenant_id: str, api_key_id: str, now: int) -> Any:
        table = api_keys.api_keys
        found = await connection.execute(
            update(table)
            .where(table.c.api_key_id == api_key_id, table.c.revoke_time.is_(None))
            .values(revoke_time=now)
            .returning(table)
        )
        row = found.first()
        return None if row is None else api_keys._key(row)

    replace(api_keys, "revoke", lambda _: revoke)


def idempotency_across_tenants() -> None:
    """An idempotency key is looked for in all tenants."""
    from services.agents.service import AgentsService
    from services.agents.tables import runs

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def start(self: Any, who: Any, asked: Any) -> Any:
            async with self._database.read() as connection:
                query = select(runs).where(runs.c.idempotency_key == asked.idempotency_key)
                row = (await connection.execute(query)).first()
            if row is not None:
                return await self._runs.run(row.tenant_id, row.run_id)
            return await original(self, who, asked)

        return start

    replace(AgentsService, "start", make)


def error_names_the_owner() -> None:
    """An error says whose a thing is."""
    from services.history.service import HistoryService
    from services.history.tables import sessions
    from services.runtime.errors import NotFound

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def messages(self: Any, tenant_id: str, session_id: str, *more: Any) -> Any:
            async with self._database.read() as connection:
                query = select(sessions.c.tenant_id).where(sessions.c.session_id == session_id)
                owner = (await connection.execute(query)).scalar_one_or_none()
            if owner not in (None, tenant_id):
                raise NotFound("There is no such session here.", metadata={"resource": "session"})
            return await original(self, tenant_id, session_id, *more)

        return messages

    replace(HistoryService, "messages", make)


def live_runs_of_anybody() -> None:
    """A run that is in memory is shown to whoever names it."""
    from services.agents.runlog import RunLog

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def watch(self: Any, tenant_id: str, run_id: str, after: int) -> AsyncIterator[Any]:
            live = self._live.get(run_id)
            owner = live.run.tenant_id if live is not None else tenant_id
            async for event in original(self, owner, run_id, after):
                yield event

        return watch

    replace(RunLog, "watch", make)


def header_is_believed() -> None:
    """A module takes the tenant from a header."""
    from services.runtime.interceptors.policies import ContractPolicies

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def on_start(self: Any, call: Any, metadata: Any) -> None:
            await original(self, call, metadata)
            tenant_id = metadata.get("x-plexus-tenant")
            if call.principal is not None and tenant_id:
                call.principal = dataclasses.replace(call.principal, tenant_id=tenant_id)

        return on_start

    replace(ContractPolicies, "on_start", make)


def page_token_is_believed() -> None:
    """A page goes on where its token says, in whosever list that is."""
    api_keys = module("identity.store.api_keys")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def page(
            connection: Any, tenant_id: str, now: int, size: int, after: tuple[int, str] | None
        ) -> Any:
            if after is not None:
                table = api_keys.api_keys
                query = select(table.c.tenant_id).where(table.c.api_key_id == after[1])
                tenant_id = (await connection.execute(query)).scalar_one_or_none() or tenant_id
            return await original(connection, tenant_id, now, size, after)

        return page

    replace(api_keys, "page", make)


def responses_of_anybody() -> None:
    """A response is found by its id alone."""
    store = module("interop.store")
    from services.interop.tables import responses

    async def get(connection: Any, tenant_id: str, response_id: str) -> Any:
        query = select(responses).where(responses.c.response_id == response_id)
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise store.NotFound.of("response")
        return store._kept(row)

    replace(store, "get", lambda _: get)


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        session_of_anybody,
        sessions_of_all,
        runs_cached_without_tenant,
        agent_is_forbidden,
        keys_of_anybody_are_deleted,
        idempotency_across_tenants,
        error_names_the_owner,
        live_runs_of_anybody,
        header_is_believed,
        page_token_is_believed,
        responses_of_anybody,
    )
}
