"""Where agents' objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plexus.agents.v1.agents_service_pb2_grpc import add_AgentsServiceServicer_to_server

from services.agents import store
from services.agents.ports import RemoteHistory, RemoteModels
from services.agents.runlog import RunLog
from services.agents.runner import Runner
from services.agents.service import AgentsService
from services.agents.servicer import AgentsServicer
from services.agents.settings import AgentsSettings
from services.runtime.groups import GroupWriter
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date, register the servicer, take up what was left behind."""
    await ctx.migrate(Path(__file__).parent / "migrations")
    run_writer = GroupWriter(ctx.database, store.insert_runs)
    event_writer = GroupWriter(ctx.database, store.insert_events)
    ctx.tasks.keep_running("agents.run_writer", run_writer.run)
    ctx.tasks.keep_running("agents.event_writer", event_writer.run)
    runs = RunLog(ctx.database, event_writer)
    history = RemoteHistory(ctx.clients.channel("history"))
    runner = Runner(runs, history, RemoteModels(ctx.clients.channel("llm")))
    service = AgentsService(
        AgentsSettings(), ctx.database, run_writer, runs, runner, history, ctx.tasks
    )
    add_AgentsServiceServicer_to_server(AgentsServicer(service), ctx.server)
    ctx.drains.append(service.drain)
    ctx.tasks.start("agents.recovery", service.recover(await service.left_behind()))
    yield
