"""Where context's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plexus.context.v1.search_service_pb2_grpc import add_SearchServiceServicer_to_server

from services.context.index.backend import Backend
from services.context.index.edge import EdgeIndex
from services.context.index.qdrant import QdrantIndex
from services.context.remote.documents import RemoteDocuments
from services.context.remote.memories import RemoteMemories
from services.context.service.freshness import Freshness
from services.context.service.library import Library
from services.context.service.searching import SearchService
from services.context.service.status import StatusService
from services.context.servicer.search import SearchServicer
from services.context.settings import ContextSettings
from services.context.workers import Follower, Rebuilder
from services.runtime.module import ModuleContext

_READY_SECONDS = 10.0


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Open the index, follow what it is derived from, register the servicers."""
    settings = ContextSettings()
    async with _backend(ctx, settings) as backend:
        library = Library(backend)
        documents = RemoteDocuments(ctx.clients.channel("ingest"))
        memories = RemoteMemories(ctx.clients.channel("memory"))
        feeds = (memories, documents)
        rebuilder = Rebuilder(library, feeds)
        search = SearchService(library, Freshness(library, feeds), documents, memories)
        status = StatusService(library, feeds, rebuilder.begin)
        add_SearchServiceServicer_to_server(SearchServicer(search, status), ctx.server)
        for feed in feeds:
            Follower(library, feed).start(ctx.tasks)
        ctx.tasks.keep_running("context.rebuild", rebuilder.run)
        ctx.checks.append(library.check)
        yield


@asynccontextmanager
async def _backend(ctx: ModuleContext, settings: ContextSettings) -> AsyncIterator[Backend]:
    if settings.qdrant_url:
        server = QdrantIndex.at(settings.qdrant_url, settings.qdrant_key.get_secret_value())
        yield server
        await server.close()
        return
    edge = EdgeIndex(ctx.settings.directory / "index")
    ctx.tasks.keep_running("context.index", edge.run)
    await edge.wait_ready(_READY_SECONDS)
    yield edge
