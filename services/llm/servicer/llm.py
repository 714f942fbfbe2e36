"""LlmService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from plexus.llm.v1 import generation_pb2
from plexus.llm.v1 import llm_service_pb2 as pb
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceServicer

from services.llm.convert import generation as convert
from services.llm.service.catalogue import Catalogue
from services.llm.service.generating import Generations
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class LlmServicer(LlmServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, catalogue: Catalogue, generations: Generations) -> None:
        self._catalogue = catalogue
        self._generations = generations

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Servicing
    ) -> pb.ListModelsResponse:
        """See the contract."""
        view = await self._catalogue.view(principal().tenant_id)
        return pb.ListModelsResponse(
            models=[
                convert.from_model(model, default=number == 0)
                for number, model in enumerate(view.listed())
            ]
        )

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Servicing
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        """See the contract."""
        # A call that is cancelled while it writes must end the provider's work at once.
        async with aclosing(self._generations.generate(convert.to_ask(request))) as events:
            async for event in events:
                yield convert.from_event(event)
