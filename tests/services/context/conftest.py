"""Context over its contract: everything real but the modules that it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from plexus.context.v1 import digest_service_pb2 as digest_pb
from plexus.context.v1 import inject_service_pb2 as inject_pb
from plexus.context.v1 import search_service_pb2 as pb
from plexus.context.v1.digest_service_pb2_grpc import DigestServiceStub
from plexus.context.v1.inject_service_pb2_grpc import InjectServiceStub
from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub

from services.context import module
from services.runtime.context import acting_as, mesh_principal
from services.runtime.status import remote_errors
from tests.services.context.standins import Documents, History, Memories, Models
from tests.support import Served, served, settings_in


@dataclass
class Room:
    """A served context, and those that stand for its neighbours."""

    mesh: Served
    documents: Documents
    memories: Memories
    history: History
    models: Models

    @property
    def stub(self) -> SearchServiceStub:
        """Search, as the mesh calls it."""
        return SearchServiceStub(self.mesh.clients.channel("context"))

    async def inject(self, user: str = "usr_a", **asked: object) -> inject_pb.InjectResponse:
        """A prompt for a user."""
        stub = InjectServiceStub(self.mesh.clients.channel("context"))
        with acting_as(mesh_principal("ten_a", user)), remote_errors():
            return await stub.Inject(inject_pb.InjectRequest(**asked))  # type: ignore[arg-type]

    async def summarize(self, **asked: object) -> digest_pb.SummarizeResponse:
        """A summary for a user."""
        stub = DigestServiceStub(self.mesh.clients.channel("context"))
        with acting_as(mesh_principal("ten_a", "usr_a")), remote_errors():
            return await stub.Summarize(digest_pb.SummarizeRequest(**asked))  # type: ignore[arg-type]

    async def search(
        self, query: str, tenant: str = "ten_a", user: str = "usr_a", **asked: object
    ) -> pb.SearchResponse:
        """What a caller finds."""
        with acting_as(mesh_principal(tenant, user)):
            return await self.stub.Search(pb.SearchRequest(query=query, **asked))  # type: ignore[arg-type]

    async def found(self, query: str, **asked: object) -> list[str]:
        """The texts of what a caller finds, when nothing is missing any more."""
        async with asyncio.timeout(30):
            while (reply := await self.search(query, **asked)).stale:  # type: ignore[arg-type]
                await asyncio.sleep(0.05)
        return [each.source.text for each in reply.hits]


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    documents, memories, history, models = Documents(), Memories(), History(), Models()
    monkeypatch.setattr(module, "RemoteDocuments", lambda _: documents)
    monkeypatch.setattr(module, "RemoteMemories", lambda _: memories)
    monkeypatch.setattr(module, "RemoteHistory", lambda _: history)
    monkeypatch.setattr(module, "RemoteModels", lambda _: models)
    async with served(settings_in(tmp_path), ["context"]) as mesh:
        yield Room(mesh, documents, memories, history, models)
