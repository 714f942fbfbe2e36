"""ingest over its contract, through the real interceptors, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from plexus.ingest.v1 import document_pb2, document_service_pb2, feed_service_pb2
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub
from plexus.ingest.v1.feed_service_pb2_grpc import FeedServiceStub
from plexus.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from plexus.ingest.v1.upload_service_pb2_grpc import UploadServiceStub

from services.runtime.context import acting_as, mesh_principal
from services.runtime.status import remote_errors
from tests.databases import KINDS, Databases
from tests.support import Served, served, settings_in

READY, FAILED = document_pb2.DOCUMENT_STATE_READY, document_pb2.DOCUMENT_STATE_FAILED
PRIVATE = document_pb2.VISIBILITY_OWNER


@dataclass
class Desk:
    """Documents, as one user of one tenant has them unless another is named."""

    mesh: Served

    def __post_init__(self) -> None:
        """Make stubs."""
        channel = self.mesh.clients.channel("ingest")
        self.documents = DocumentServiceStub(channel)
        self.uploads = UploadServiceStub(channel)
        self.feed = FeedServiceStub(channel)
        self.sources = SourceServiceStub(channel)

    @contextmanager
    def by(self, tenant: str = "ten_a", user: str = "usr_a") -> Iterator[None]:
        """Whoever calls, and errors as they were raised."""
        with acting_as(mesh_principal(tenant, user)), remote_errors():
            yield

    async def create(
        self, text: str | bytes = "", *, url: str = "", key: str = "", **info: object
    ) -> document_service_pb2.CreateDocumentResponse:
        """Bring a document."""
        request = document_service_pb2.CreateDocumentRequest(
            info=document_pb2.DocumentInfo(**info),  # type: ignore[arg-type]
            idempotency_key=key,
        )
        if url:
            request.url = url
        elif isinstance(text, str):
            request.text = text
        else:
            request.data = text
        return await self.documents.CreateDocument(request)

    async def ended(self, document_id: str) -> document_pb2.Document:
        """A document when it is read, or could not be."""
        last = None
        async with asyncio.timeout(60):
            async for reply in self.documents.WatchDocument(
                document_service_pb2.WatchDocumentRequest(document_id=document_id)
            ):
                last = reply.document
        assert last is not None
        return last

    async def brought(self, text: str | bytes = "", **info: object) -> document_pb2.Document:
        """A document that was brought and read."""
        reply = await self.create(text, **info)  # type: ignore[arg-type]
        return await self.ended(reply.document.document_id)

    async def passages(self, document_id: str, size: int = 0) -> list[document_pb2.Passage]:
        """All of a document's passages."""
        found: list[document_pb2.Passage] = []
        token = ""
        while True:
            page = await self.documents.ListPassages(
                document_service_pb2.ListPassagesRequest(
                    document_id=document_id, page_size=size, page_token=token
                )
            )
            found += page.passages
            token = page.next_page_token
            if not token:
                return found

    async def changes(self, after: int = 0) -> list[feed_service_pb2.DocumentChange]:
        """What the feed has after a position."""
        request = feed_service_pb2.ListChangesRequest(after_position=after)
        return list((await self.feed.ListChanges(request)).changes)


@pytest.fixture(params=KINDS)
async def desk(
    request: pytest.FixtureRequest, tmp_path: Path, databases: Databases
) -> AsyncIterator[Desk]:
    """A process with an empty database."""
    settings = settings_in(
        tmp_path, egress_allow="127.0.0.1", **await databases.settings(request.param)
    )
    async with served(settings, ["ingest"]) as mesh:
        yield Desk(mesh)
