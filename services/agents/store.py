"""How agents, runs and events are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, and_, bindparam, insert, select, text, update

from services.agents.domain import (
    Agent,
    Event,
    Failed,
    NewRun,
    Run,
    RunState,
    RunTaken,
    Usage,
    from_data,
    key_reused,
    session_busy,
    to_data,
)
from services.agents.tables import agents, run_events, runs
from services.runtime.db import Connection, upsert
from services.runtime.errors import NotFound, PlexusError


@dataclass(frozen=True, slots=True)
class NewEvents:
    """Events of a run to keep; where the last of them ends it, `run` says how."""

    run: Run
    events: tuple[Event, ...]
    owner: str

    @property
    def ends(self) -> bool:
        """Whether the run ends with them."""
        return self.events[-1].is_last


async def default_agent(connection: Connection, tenant_id: str) -> Agent | None:
    """The tenant's default agent, if it was made."""
    query = select(agents).where(agents.c.tenant_id == tenant_id, agents.c.is_default)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _agent(row)


async def insert_agent(connection: Connection, agent: Agent) -> None:
    """Keep a new agent, unless its tenant has a default one and this would be another."""
    await connection.execute(
        upsert(connection.dialect.name, agents).values(asdict(agent)).on_conflict_do_nothing()
    )


async def get_agent(connection: Connection, tenant_id: str, agent_id: str) -> Agent:
    """One agent.

    Raises:
        NotFound: There is none, or it is another tenant's.
    """
    query = select(agents).where(agents.c.tenant_id == tenant_id, agents.c.agent_id == agent_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("agent")
    return _agent(row)


async def list_agents(
    connection: Connection, tenant_id: str, before: str | None, limit: int
) -> list[Agent]:
    """Agents by id, which is by age, newest first, after one of them."""
    query = select(agents).where(agents.c.tenant_id == tenant_id)
    if before is not None:
        query = query.where(agents.c.agent_id < before)
    query = query.order_by(agents.c.agent_id.desc()).limit(limit)
    return [_agent(row) for row in await connection.execute(query)]


async def insert_runs(
    connection: Connection, batch: Sequence[NewRun]
) -> Sequence[Run | PlexusError]:
    """Accept runs, each with its first event; gives each, the first under its key, or why not.

    A refusal is SESSION_BUSY where its session has a run under way, and IDEMPOTENCY_KEY_REUSED
    where its key stands for another request.
    """
    sessions = [new.run.session_id for new in batch]
    found = await connection.execute(
        select(runs.c.session_id, runs.c.run_id).where(
            runs.c.session_id.in_(sessions), runs.c.state == int(RunState.RUNNING)
        )
    )
    under_way = {row.session_id: row.run_id for row in found}
    # After the sessions: what another replica accepts in between is then known by its key.
    keys = [new.idempotency_key for new in batch if new.idempotency_key]
    known = await connection.execute(select(runs).where(runs.c.idempotency_key.in_(keys)))
    by_key = {(row.tenant_id, row.user_id, row.idempotency_key): row for row in known}
    repeated = {key: (run_of(row), row.digest) for key, row in by_key.items()}
    results: list[Run | PlexusError] = []
    accepted: list[NewRun] = []
    for new in batch:
        key = (new.run.tenant_id, new.run.user_id, new.idempotency_key)
        if new.idempotency_key and key in repeated:
            first, digest = repeated[key]
            results.append(first if digest == new.digest else key_reused())
        elif new.run.session_id in under_way:
            results.append(session_busy(under_way[new.run.session_id]))
        else:
            repeated[key] = (new.run, new.digest)
            under_way[new.run.session_id] = new.run.run_id
            accepted.append(new)
            results.append(new.run)
    # In one order for all replicas, so that they do not wait for each other in a circle.
    accepted.sort(key=lambda new: new.run.session_id)
    if accepted:
        await connection.execute(insert(runs), [_new_columns(new) for new in accepted])
        events = [_event(new.run, new.started) for new in accepted]
        await connection.execute(insert(run_events), events)
    return results


def _new_columns(new: NewRun) -> dict[str, Any]:
    return {
        **_columns(new.run),
        "idempotency_key": new.idempotency_key or None,
        "digest": new.digest,
        "input": new.run.input,
        "owner": new.owner,
    }


async def find_repeated(connection: Connection, new: NewRun) -> Run | PlexusError | None:
    """The first run under a new one's key, a refusal if that was another request, or None."""
    if not new.idempotency_key:
        return None
    same_key = and_(
        runs.c.tenant_id == new.run.tenant_id,
        runs.c.user_id == new.run.user_id,
        runs.c.idempotency_key == new.idempotency_key,
    )
    row = (await connection.execute(select(runs).where(same_key))).one_or_none()
    if row is None:
        return None
    return run_of(row) if row.digest == new.digest else key_reused()


async def insert_events(
    connection: Connection, batch: Sequence[NewEvents]
) -> Sequence[PlexusError | None]:
    """Keep events, and how runs ended; RunTaken in place of a run that is another process's."""
    ids = {new.run.run_id for new in batch}
    query = select(runs.c.run_id, runs.c.owner).where(runs.c.run_id.in_(ids))
    # Shared: whoever takes a run over must wait, and other writers need not.
    query = query.order_by(runs.c.run_id).with_for_update(read=True)
    found = await connection.execute(query)
    owners = {row.run_id: row.owner for row in found}
    own = [new for new in batch if owners.get(new.run.run_id) == new.owner]
    if own:
        rows = [_event(new.run, event) for new in own for event in new.events]
        await connection.execute(insert(run_events), rows)
    ended = [{**_columns(new.run), "of": new.run.run_id} for new in own if new.ends]
    if ended:
        end = update(runs).where(runs.c.run_id == bindparam("of"))
        await connection.execute(end, ended)
    return [None if owners.get(new.run.run_id) == new.owner else RunTaken() for new in batch]


async def ask_cancel(connection: Connection, tenant_id: str, run_id: str, actor: str) -> None:
    """Let the process that carries a run know that somebody wants it cancelled."""
    await connection.execute(
        update(runs)
        .where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id, text("state = 1"))
        .values(cancel_by=actor)
    )


async def get_run(connection: Connection, tenant_id: str, run_id: str) -> Run:
    """One run as it was accepted, or as it ended.

    Raises:
        NotFound: There is none, or it is another tenant's.
    """
    query = select(runs).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("run")
    return run_of(row)


async def list_events(
    connection: Connection, tenant_id: str, run_id: str, after: int, limit: int
) -> list[Event]:
    """A run's events after a sequence, in order."""
    query = (
        select(run_events)
        .where(
            run_events.c.tenant_id == tenant_id,
            run_events.c.run_id == run_id,
            run_events.c.sequence > after,
        )
        .order_by(run_events.c.sequence)
        .limit(limit)
    )
    return [
        Event(row.sequence, row.time, from_data(row.kind, row.data))
        for row in await connection.execute(query)
    ]


def _event(run: Run, event: Event) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "tenant_id": run.tenant_id,
        "sequence": event.sequence,
        "time": event.time,
        "kind": event.happening.kind,
        "data": to_data(event.happening),
    }


def _columns(run: Run) -> dict[str, Any]:
    columns = {
        name: getattr(run, name)
        for name in (
            *("run_id", "tenant_id", "user_id", "agent_id", "session_id"),
            *("output", "last_sequence", "create_time", "end_time"),
        )
    }
    return {
        **columns,
        "state": int(run.state),
        "failure": asdict(run.failure) if run.failure else None,
        "usage": asdict(run.usage) if run.usage else None,
    }


def _agent(row: Row[Any]) -> Agent:
    return Agent(**row._mapping)


def run_of(row: Row[Any]) -> Run:
    """A run from its row."""
    return Run(
        run_id=row.run_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        agent_id=row.agent_id,
        session_id=row.session_id,
        input=row.input,
        state=RunState(row.state),
        output=row.output,
        failure=Failed(**row.failure) if row.failure else None,
        usage=Usage(**row.usage) if row.usage else None,
        last_sequence=row.last_sequence,
        create_time=row.create_time,
        end_time=row.end_time,
    )
