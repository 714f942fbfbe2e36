"""SourceService over gRPC."""

from __future__ import annotations

from plexus.ingest.v1 import source_service_pb2 as pb
from plexus.ingest.v1.source_service_pb2_grpc import SourceServiceServicer

from services.ingest.convert.sources import from_source, to_wish
from services.ingest.service.sources import Sources
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable


class SourceServicer(SourceServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def CreateSource(
        self, request: pb.CreateSourceRequest, context: Servicing
    ) -> pb.CreateSourceResponse:
        """See the contract."""
        call = Repeatable.of(request, request.idempotency_key)
        made = await self._sources.create(principal(), to_wish(request.source), call)
        return pb.CreateSourceResponse(source=from_source(made))

    async def ListSources(
        self, request: pb.ListSourcesRequest, context: Servicing
    ) -> pb.ListSourcesResponse:
        """See the contract."""
        found, token = await self._sources.page(principal(), request.page_size, request.page_token)
        return pb.ListSourcesResponse(sources=map(from_source, found), next_page_token=token)

    async def GetSource(
        self, request: pb.GetSourceRequest, context: Servicing
    ) -> pb.GetSourceResponse:
        """See the contract."""
        found = await self._sources.get(principal(), request.source_id)
        return pb.GetSourceResponse(source=from_source(found))

    async def UpdateSource(
        self, request: pb.UpdateSourceRequest, context: Servicing
    ) -> pb.UpdateSourceResponse:
        """See the contract."""
        found = await self._sources.update(
            principal(), request.source_id, to_wish(request.source), request.etag
        )
        return pb.UpdateSourceResponse(source=from_source(found))

    async def DeleteSource(
        self, request: pb.DeleteSourceRequest, context: Servicing
    ) -> pb.DeleteSourceResponse:
        """See the contract."""
        await self._sources.delete(
            principal(), request.source_id, with_documents=request.delete_documents
        )
        return pb.DeleteSourceResponse()

    async def RunSource(
        self, request: pb.RunSourceRequest, context: Servicing
    ) -> pb.RunSourceResponse:
        """See the contract."""
        found = await self._sources.run(principal(), request.source_id)
        return pb.RunSourceResponse(source=from_source(found))
