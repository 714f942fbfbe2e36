"""Where interop's objects meet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from plexus.interop.v1.openai_service_pb2_grpc import add_OpenAiServiceServicer_to_server

from services.interop import workers
from services.interop.leases import Leases
from services.interop.ports import RemoteAgents, RemoteModels
from services.interop.service.background import Background
from services.interop.service.completions import Completions
from services.interop.service.keeping import Keeper
from services.interop.service.responses import Responses
from services.interop.servicer import OpenAiServicer
from services.interop.settings import InteropSettings
from services.runtime.errors import PlexusError
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date, register the servicer, end what was left behind."""
    settings = InteropSettings()
    await ctx.migrate(Path(__file__).parent / "migrations")
    models = RemoteModels(ctx.clients.channel("llm"))
    agents = RemoteAgents(ctx.clients.channel("agents"))
    # One process at a time has an SQLite file, so that the one before is known to have ended.
    alone = ctx.database.dialect == "sqlite"
    leases = Leases(ctx.database.apart(), ctx.settings.instance or ("only" if alone else ""))
    await leases.begin()
    keeper = Keeper(ctx.database, models, leases.owner)
    background = Background(ctx.database, models, leases, ctx.shared.notices, ctx.tasks, settings)
    responses = Responses(agents, keeper, background)
    servicer = OpenAiServicer(Completions(models, agents), responses)
    add_OpenAiServiceServicer_to_server(servicer, ctx.server)
    ctx.drains.extend((keeper.drain, background.drain))
    ctx.tasks.keep_running("interop.lease", background.keep_lease)
    purge = partial(workers.keep_purging, ctx.database, settings.response_days)
    ctx.tasks.keep_running("interop.purge", purge)
    yield
    await keeper.settle()
    with contextlib.suppress(PlexusError):  # without it, it runs out by itself
        await leases.end()
