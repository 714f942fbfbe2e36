"""Where context's objects meet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plexus.context.v1.digest_service_pb2_grpc import add_DigestServiceServicer_to_server
from plexus.context.v1.inject_service_pb2_grpc import add_InjectServiceServicer_to_server
from plexus.context.v1.search_service_pb2_grpc import add_SearchServiceServicer_to_server

from services.context.index.backend import Backend
from services.context.index.edge import EdgeIndex
from services.context.index.qdrant import QdrantIndex
from services.context.leading import Leadership
from services.context.remote.documents import RemoteDocuments
from services.context.remote.history import RemoteHistory
from services.context.remote.memories import RemoteMemories
from services.context.remote.models import RemoteModels
from services.context.service.digesting import DigestService
from services.context.service.freshness import Freshness
from services.context.service.indexing import Indexer
from services.context.service.injecting import InjectService
from services.context.service.library import Library
from services.context.service.meaning import Meaning, Vectors
from services.context.service.searching import SearchService
from services.context.service.status import StatusService
from services.context.servicer.digest import DigestServicer
from services.context.servicer.inject import InjectServicer
from services.context.servicer.search import SearchServicer
from services.context.settings import ContextSettings
from services.context.workers import Follower, Rebuilder, Taker
from services.runtime.errors import PlexusError
from services.runtime.module import ModuleContext

_READY_SECONDS = 10.0


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Open the index, follow what it is derived from, register the servicers."""
    await ctx.migrate(Path(__file__).parent / "migrations")
    settings = ContextSettings()
    # One process at a time has an SQLite file, so that the one before is known to have ended.
    alone = ctx.database.dialect == "sqlite"
    leadership = Leadership(
        ctx.database.apart(), ctx.settings.instance or ("only" if alone else "")
    )
    await leadership.begin()
    ctx.tasks.keep_running("context.lease", leadership.keep)
    async with _backend(ctx, settings) as backend:
        library = Library(backend)
        if await leadership.claim():
            with contextlib.suppress(PlexusError):  # those that follow the feeds try again
                await library.prepare()
        documents = RemoteDocuments(ctx.clients.channel("ingest"))
        memories = RemoteMemories(ctx.clients.channel("memory"))
        feeds = (memories, documents)
        rebuilder = Rebuilder(library, feeds, leadership)
        models = RemoteModels(ctx.clients.channel("llm"))
        meaning = Meaning(library, models, on=settings.context_embeddings == "auto")
        search = SearchService(
            library, Freshness(library, feeds), documents, memories, meaning, models
        )
        history = RemoteHistory(ctx.clients.channel("history"))
        status = StatusService(library, feeds, rebuilder.begin)
        add_SearchServiceServicer_to_server(SearchServicer(search, status), ctx.server)
        digest = DigestService(search, documents, memories, history, models)
        add_DigestServiceServicer_to_server(DigestServicer(digest), ctx.server)
        inject = InjectService(search, history, memories, ctx.tasks)
        add_InjectServiceServicer_to_server(InjectServicer(inject), ctx.server)
        for feed in feeds:
            takers: dict[str, Taker] = {feed.name: Indexer(library, feed)}
            if settings.context_embeddings == "auto":
                takers[f"{feed.name}.vectors"] = Vectors(library, feed, models)
            for name, taker in takers.items():
                Follower(library, feed, taker, leadership).start(ctx.tasks, f"context.{name}")
        ctx.tasks.keep_running("context.rebuild", rebuilder.run)
        ctx.checks.append(library.check)
        yield
    with contextlib.suppress(PlexusError):  # without it, it runs out by itself
        await leadership.end()


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
