"""Context over its contract: everything real but the modules that it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from plexus.context.v1 import search_service_pb2 as pb
from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub

from services.context import module
from services.runtime.context import acting_as, mesh_principal
from tests.services.context.standins import Documents, Memories
from tests.support import Served, served, settings_in


@dataclass
class Room:
    """A served context, and those that stand for its neighbours."""

    mesh: Served
    documents: Documents
    memories: Memories

    @property
    def stub(self) -> SearchServiceStub:
        """Search, as the mesh calls it."""
        return SearchServiceStub(self.mesh.clients.channel("context"))

    async def search(
        self, query: str, tenant: str = "ten_a", user: str = "usr_a", **asked: object
    ) -> pb.SearchResponse:
        """What a caller finds."""
        with acting_as(mesh_principal(tenant, user)):
            return await self.stub.Search(pb.SearchRequest(query=query, **asked))  # type: ignore[arg-type]

    async def found(self, query: str, **asked: object) -> list[str]:
        """The texts of what a caller finds, which must not be stale."""
        reply = await self.search(query, **asked)  # type: ignore[arg-type]
        assert not reply.stale
        return [each.source.text for each in reply.hits]


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    documents, memories = Documents(), Memories()
    monkeypatch.setattr(module, "RemoteDocuments", lambda _: documents)
    monkeypatch.setattr(module, "RemoteMemories", lambda _: memories)
    async with served(settings_in(tmp_path), ["context"]) as mesh:
        yield Room(mesh, documents, memories)
