"""InjectService over gRPC."""

from __future__ import annotations

from plexus.context.v1 import inject_service_pb2 as pb
from plexus.context.v1.inject_service_pb2_grpc import InjectServiceServicer

from services.context.convert import from_inject, to_prompt
from services.context.service.injecting import InjectService
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class InjectServicer(InjectServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, service: InjectService) -> None:
        self._service = service

    async def Inject(self, request: pb.InjectRequest, context: Servicing) -> pb.InjectResponse:
        """See the contract."""
        ask = from_inject(request)
        return to_prompt(await self._service.inject(principal(), ask), explain=ask.explain)
