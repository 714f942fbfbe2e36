"""FeedService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from plexus.ingest.v1 import feed_service_pb2 as pb
from plexus.ingest.v1.feed_service_pb2_grpc import FeedServiceServicer

from services.ingest.convert.documents import from_document, from_placed
from services.ingest.service.documents import Documents
from services.ingest.service.feed import Feed
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class FeedServicer(FeedServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, feed: Feed, documents: Documents) -> None:
        self._feed = feed
        self._documents = documents

    async def ListChanges(
        self, request: pb.ListChangesRequest, context: Servicing
    ) -> pb.ListChangesResponse:
        """See the contract."""
        found, newest = await self._feed.changes(principal(), request.after_position, request.limit)
        changes = [
            pb.DocumentChange(
                position=position,
                tenant_id=tenant_id,
                document_id=document_id,
                document=from_document(document) if document else None,
            )
            for position, tenant_id, document_id, document in found
        ]
        return pb.ListChangesResponse(changes=changes, newest_position=newest)

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Servicing
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        """See the contract."""
        async with aclosing(self._feed.watch()) as positions:
            async for newest in positions:
                yield pb.WatchChangesResponse(newest_position=newest)

    async def ReadPassages(
        self, request: pb.ReadPassagesRequest, context: Servicing
    ) -> pb.ReadPassagesResponse:
        """See the contract."""
        found, documents = await self._documents.passages_by_id(principal(), request.passage_ids)
        revisions = {each.document_id: each.revision for each in documents}
        return pb.ReadPassagesResponse(
            passages=[from_placed(each, revisions[each.document_id]) for each in found],
            documents=map(from_document, documents),
        )
