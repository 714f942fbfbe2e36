"""DigestService over gRPC."""

from __future__ import annotations

import asyncio

from plexus.context.v1 import digest_service_pb2 as pb
from plexus.context.v1.digest_service_pb2_grpc import DigestServiceServicer

from services.context.convert import from_summarize, to_citation, to_digest
from services.context.service.digesting import DigestService
from services.context.text.attribution import attribute
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class DigestServicer(DigestServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, service: DigestService) -> None:
        self._service = service

    async def Summarize(
        self, request: pb.SummarizeRequest, context: Servicing
    ) -> pb.SummarizeResponse:
        """See the contract."""
        return to_digest(await self._service.summarize(principal(), from_summarize(request)))

    async def Attribute(
        self, request: pb.AttributeRequest, context: Servicing
    ) -> pb.AttributeResponse:
        """See the contract."""
        found = await asyncio.to_thread(attribute, request.text, list(request.source_texts))
        return pb.AttributeResponse(citations=map(to_citation, found))
