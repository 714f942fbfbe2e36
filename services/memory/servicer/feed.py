"""FeedService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from plexus.memory.v1 import feed_service_pb2 as pb
from plexus.memory.v1.feed_service_pb2_grpc import FeedServiceServicer

from services.memory import convert
from services.memory.service.browsing import Browsing
from services.memory.service.feeding import Feeding
from services.runtime import clock
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class FeedServicer(FeedServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, feeding: Feeding, browsing: Browsing) -> None:
        self._feeding = feeding
        self._browsing = browsing

    async def ListChanges(
        self, request: pb.ListChangesRequest, context: Servicing
    ) -> pb.ListChangesResponse:
        """See the contract."""
        found, newest = await self._feeding.changes(
            principal(), request.after_position, request.limit
        )
        return pb.ListChangesResponse(changes=map(convert.to_change, found), newest_position=newest)

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Servicing
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        """See the contract."""
        async with aclosing(self._feeding.watch()) as positions:
            async for position in positions:
                yield pb.WatchChangesResponse(newest_position=position)

    async def ReadMemories(
        self, request: pb.ReadMemoriesRequest, context: Servicing
    ) -> pb.ReadMemoriesResponse:
        """See the contract."""
        found, commit = await self._browsing.read(
            principal(),
            request.space,
            list(request.memory_ids),
            convert.from_revision(request.revision),
        )
        reply = pb.ReadMemoriesResponse(memories=map(convert.to_memory, found))
        if commit is not None:
            reply.commit_id = commit.commit_id
            reply.commit_time.CopyFrom(clock.to_timestamp(commit.create_time))
        return reply
