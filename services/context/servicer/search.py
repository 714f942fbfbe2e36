"""SearchService over gRPC."""

from __future__ import annotations

from plexus.context.v1 import search_service_pb2 as pb
from plexus.context.v1.search_service_pb2_grpc import SearchServiceServicer

from services.context.convert import from_search, to_answer
from services.context.service.searching import SearchService
from services.context.service.status import StatusService
from services.runtime import clock, paging
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class SearchServicer(SearchServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, search: SearchService, status: StatusService) -> None:
        self._search = search
        self._status = status

    async def Search(self, request: pb.SearchRequest, context: Servicing) -> pb.SearchResponse:
        """See the contract."""
        answer = await self._search.search(
            principal(),
            from_search(request),
            paging.page_size(request.page_size),
            request.page_token,
        )
        return to_answer(answer)

    async def GetIndex(
        self, request: pb.GetIndexRequest, context: Servicing
    ) -> pb.GetIndexResponse:
        """See the contract."""
        found = await self._status.status(principal().tenant_id)
        return pb.GetIndexResponse(
            entries=found.entries,
            behind=found.behind,
            rebuild_percent=found.rebuild_percent,
            embedding_models=found.embedding_models,
            backend=found.backend,
            create_time=clock.to_timestamp(found.create_time),
        )

    async def RebuildIndex(
        self, request: pb.RebuildIndexRequest, context: Servicing
    ) -> pb.RebuildIndexResponse:
        """See the contract."""
        return pb.RebuildIndexResponse(rebuild_percent=await self._status.rebuild())
