"""Where llm's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from plexus.llm.v1.capability_service_pb2_grpc import add_CapabilityServiceServicer_to_server
from plexus.llm.v1.llm_service_pb2_grpc import add_LlmServiceServicer_to_server
from plexus.llm.v1.provider_service_pb2_grpc import add_ProviderServiceServicer_to_server
from plexus.llm.v1.route_service_pb2_grpc import add_RouteServiceServicer_to_server
from plexus.llm.v1.usage_service_pb2_grpc import add_UsageServiceServicer_to_server

from services.llm import tables, workers
from services.llm.classifying import TaskClassifier
from services.llm.lately import Lately
from services.llm.providers.offline import OfflineProvider
from services.llm.service.attempts import Attempts
from services.llm.service.backends import Backends
from services.llm.service.capabilities import Capabilities
from services.llm.service.catalogue import Catalogue
from services.llm.service.choosing import Chooser
from services.llm.service.generating import Generations
from services.llm.service.metering import Meter
from services.llm.service.providers import Providers
from services.llm.service.routes import Routes
from services.llm.service.spending import Spending
from services.llm.servicer.capabilities import CapabilityServicer
from services.llm.servicer.llm import LlmServicer
from services.llm.servicer.providers import ProviderServicer
from services.llm.servicer.routes import RouteServicer
from services.llm.servicer.usage import UsageServicer
from services.llm.settings import LlmSettings
from services.llm.shared import shared_providers
from services.runtime.egress import Egress
from services.runtime.module import ModuleContext
from services.runtime.replies import Replies


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Bring the tables up to date, register the servicers, enter what was left behind.

    Raises:
        pydantic.ValidationError: The settings do not hang together; its text holds no key.
        SchemaTooNew: A later version of this program wrote the tables.
    """
    settings = LlmSettings()
    await ctx.migrate(Path(__file__).parent / "migrations")
    shared, aliases = shared_providers(settings, ctx.master_key)
    egress = Egress(ctx.settings.egress_allow)
    lately = Lately()
    catalogue = Catalogue(ctx.database, shared, aliases, lately)
    offline = OfflineProvider()
    backends = Backends(ctx.master_key, egress, offline)
    alone = ctx.database.dialect == "sqlite"
    instance = ctx.settings.instance or ("only" if alone else "")
    meter = Meter(ctx.database, ctx.settings.directory / "llm", instance, ctx.tasks)
    chooser = Chooser(catalogue, TaskClassifier())
    attempts = Attempts(catalogue, backends)
    generations = Generations(catalogue, chooser, attempts, meter, ctx.master_key)
    capabilities = Capabilities(catalogue, chooser, backends, meter, generations)
    replies = Replies(tables.replies, ctx.master_key)
    providers = Providers(ctx.database, catalogue, egress, ctx.master_key, replies)
    spending = Spending(ctx.database, replies)
    server = ctx.server
    add_LlmServiceServicer_to_server(LlmServicer(catalogue, generations), server)
    add_CapabilityServiceServicer_to_server(CapabilityServicer(capabilities), server)
    add_ProviderServiceServicer_to_server(ProviderServicer(providers), server)
    add_RouteServiceServicer_to_server(
        RouteServicer(Routes(ctx.database, catalogue, replies)), server
    )
    add_UsageServiceServicer_to_server(UsageServicer(spending, catalogue), server)
    await meter.start()
    ctx.tasks.keep_running("llm.purge", partial(workers.keep_purging, ctx.database, replies))
    ctx.tasks.keep_running("llm.seals", partial(workers.seal_again, ctx.database, ctx.master_key))
    ctx.drains.append(meter.drain)
    try:
        yield
    finally:
        await meter.close()
        await backends.close()
        await offline.close()
