"""Where agents' objects meet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plexus.agents.v1.agents_service_pb2_grpc import add_AgentsServiceServicer_to_server

from services.agents import store
from services.agents.knowledge import RemoteKnowledge
from services.agents.leases import Leases
from services.agents.ports import RemoteHistory, RemoteModels
from services.agents.runlog import RunLog
from services.agents.runner import Runner
from services.agents.service import AgentsService
from services.agents.servicer import AgentsServicer
from services.agents.settings import AgentsSettings
from services.runtime.errors import PlexusError
from services.runtime.groups import GroupWriter
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date, register the servicer, take up what was left behind."""
    await ctx.migrate(Path(__file__).parent / "migrations")
    run_writer = GroupWriter(ctx.database, store.insert_runs, lambda new: new.run.tenant_id)
    event_writer = GroupWriter(ctx.database, store.insert_events, lambda new: new.run.tenant_id)
    ctx.tasks.keep_running("agents.run_writer", run_writer.run)
    ctx.tasks.keep_running("agents.event_writer", event_writer.run)
    # One process at a time has an SQLite file, so that the one before is known to have ended.
    alone = ctx.database.dialect == "sqlite"
    leases = Leases(ctx.database.apart(), ctx.settings.instance or ("only" if alone else ""))
    await leases.begin()
    notices = ctx.shared.notices
    runs = RunLog(ctx.database, event_writer, notices, leases.owner)
    history = RemoteHistory(ctx.clients.channel("history"))
    knowledge = RemoteKnowledge(ctx.clients.channel("context"))
    runner = Runner(runs, history, knowledge, RemoteModels(ctx.clients.channel("llm")))
    service = AgentsService(
        AgentsSettings(),
        ctx.database,
        run_writer,
        runs,
        runner,
        history,
        ctx.tasks,
        leases,
        notices,
    )
    add_AgentsServiceServicer_to_server(AgentsServicer(service), ctx.server)
    ctx.drains.append(service.drain)
    ctx.tasks.keep_running("agents.lease", service.keep_lease)
    yield
    with contextlib.suppress(PlexusError):  # without it, it runs out by itself
        await leases.end()
