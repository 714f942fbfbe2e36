"""Where history's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plexus.history.v1.history_service_pb2_grpc import add_HistoryServiceServicer_to_server

from services.history import store
from services.history.service import HistoryService
from services.history.servicer import HistoryServicer
from services.runtime.groups import GroupWriter
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date and register the servicer."""
    await ctx.migrate(Path(__file__).parent / "migrations")
    writer = GroupWriter(ctx.database, store.append, lambda new: new.tenant_id)
    ctx.tasks.keep_running("history.writer", writer.run)
    servicer = HistoryServicer(HistoryService(ctx.database, writer))
    add_HistoryServiceServicer_to_server(servicer, ctx.server)
    yield
