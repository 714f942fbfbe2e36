"""MonitorService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from plexus.monitor.v1 import monitor_service_pb2 as pb
from plexus.monitor.v1.monitor_service_pb2_grpc import MonitorServiceServicer

from services.monitor.service import HealthWatch
from services.runtime import clock
from services.runtime.interceptors.adapter import Servicing


class MonitorServicer(MonitorServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, watch: HealthWatch) -> None:
        self._watch = watch

    async def WatchHealth(
        self, request: pb.WatchHealthRequest, context: Servicing
    ) -> AsyncIterator[pb.WatchHealthResponse]:
        """See the contract."""
        async with aclosing(self._watch.changes()) as changes:
            async for change in changes:
                yield pb.WatchHealthResponse(
                    module_name=change.module,
                    status=change.status,
                    since_time=clock.to_timestamp(change.since),
                    detail=change.detail,
                )
