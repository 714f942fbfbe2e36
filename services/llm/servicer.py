"""LlmService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from plexus.llm.v1 import llm_service_pb2 as pb
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceServicer

from services.llm import convert
from services.llm.service import LanguageModels
from services.runtime.interceptors.adapter import Servicing


class LlmServicer(LlmServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, models: LanguageModels) -> None:
        self._models = models

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Servicing
    ) -> pb.ListModelsResponse:
        """See the contract."""
        return pb.ListModelsResponse(
            models=[
                convert.from_model(model, default=number == 0)
                for number, model in enumerate(self._models.models)
            ]
        )

    async def Generate(
        self, request: pb.GenerateRequest, context: Servicing
    ) -> AsyncIterator[pb.GenerateResponse]:
        """See the contract."""
        prompt = convert.to_prompt(request)
        # A call that is cancelled while it writes must end the provider's work at once.
        async with aclosing(self._models.generate(request.model, prompt)) as events:
            async for event in events:
                yield convert.from_event(event)
