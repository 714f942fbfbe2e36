"""Where history's objects meet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plexus.history.v1.history_service_pb2_grpc import add_HistoryServiceServicer_to_server
from plexus.history.v1.summary_service_pb2_grpc import add_SummaryServiceServicer_to_server

from services.history import store
from services.history.ports import RemoteMemory, RemoteModels
from services.history.reading import Reading
from services.history.service import HistoryService
from services.history.servicer import HistoryServicer, SummaryServicer
from services.history.settings import HistorySettings
from services.history.summaries import SummaryService
from services.history.tables import owners
from services.history.workers import Consolidator, Proposer, Watcher
from services.runtime.errors import PlexusError
from services.runtime.groups import GroupWriter
from services.runtime.leases import Lease
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date, register the servicers, take up what was left behind."""
    settings = HistorySettings()
    await ctx.migrate(Path(__file__).parent / "migrations")
    # One process at a time has an SQLite file, so that the one before is known to have ended.
    alone = ctx.database.dialect == "sqlite"
    instance = ctx.settings.instance or ("only" if alone else "")
    lease = Lease(ctx.database.apart(), owners, instance)
    await lease.begin()
    reading = Reading(RemoteModels(ctx.clients.channel("llm")))
    consolidator = Consolidator(ctx.database, lease, reading, ctx.tasks)
    summaries = SummaryService(ctx.database, reading, consolidator.wake)
    tokens = settings.history_consolidate_tokens
    watcher = Watcher(ctx.database, summaries, tokens)
    proposer = Proposer(ctx.database, RemoteMemory(ctx.clients.channel("memory")))
    writer = GroupWriter(ctx.database, store.append, lambda new: new.tenant_id)
    history = HistoryService(ctx.database, writer, watcher.touched if tokens else None)
    add_HistoryServiceServicer_to_server(HistoryServicer(history), ctx.server)
    add_SummaryServiceServicer_to_server(SummaryServicer(summaries), ctx.server)
    ctx.tasks.keep_running("history.writer", writer.run)
    ctx.tasks.keep_running("history.consolidator", consolidator.keep_working)
    ctx.tasks.keep_running("history.proposer", proposer.keep_proposing)
    if tokens:
        ctx.tasks.keep_running("history.watcher", watcher.keep_watching)
    yield
    with contextlib.suppress(PlexusError):  # without it, it runs out by itself
        await lease.end()
