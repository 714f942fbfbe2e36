"""The llm module."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

import grpc
from plexus.errors.v1.errors_pb2 import ErrorReason
from plexus.llm.v1 import (
    capability_service_pb2,
    generation_pb2,
    llm_service_pb2,
    model_pb2,
    provider_pb2,
)
from plexus.llm.v1.capability_service_pb2_grpc import CapabilityServiceStub
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub

from services.context.ports import Written
from services.context.remote.answers import answers
from services.runtime.context import principal
from services.runtime.errors import Unavailable

_MODELS_SECONDS = 30.0
_MAX_TENANTS = 1_000
_MAX_TEXT = 200_000


class RemoteModels:
    """See Models."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._llm = LlmServiceStub(channel)
        self._capabilities = CapabilityServiceStub(channel)
        # Each tenant has models of its own.
        self._embedding: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def write(
        self,
        instructions: str,
        sources: Sequence[str],
        question: str,
        *,
        model: str = "",
        task_class: str = "",
        json: bool = False,
        max_tokens: int = 2_000,
    ) -> Written:
        """See Models."""
        request = generation_pb2.GenerateRequest(
            model=model,
            task_class="" if model else task_class,
            max_output_tokens=max_tokens,
            temperature=0,
            messages=[
                _message(
                    instructions,
                    model_pb2.MESSAGE_ROLE_SYSTEM,
                    model_pb2.MESSAGE_ORIGIN_SYSTEM,
                ),
                *(
                    _message(each, model_pb2.MESSAGE_ROLE_USER, model_pb2.MESSAGE_ORIGIN_RETRIEVED)
                    for each in sources
                ),
                _message(question, model_pb2.MESSAGE_ROLE_USER, model_pb2.MESSAGE_ORIGIN_USER),
            ],
        )
        if json:
            request.answer_format.json_object = True
        call = self._llm.Generate(request)
        name, parts = "", list[str]()
        try:
            with answers():
                async for event in call:
                    match event.WhichOneof("event"):
                        case "started":
                            name = event.started.model
                        case "switched":
                            name = event.switched.model
                        case "text_delta":
                            parts.append(event.text_delta.text)
                        case "failed":
                            raise _failed(event.failed)
                        case "finished":
                            return Written(name, "".join(parts)[:_MAX_TEXT])
        finally:
            call.cancel()
        raise Unavailable("The model's answer was cut off.", reason="MODEL_UNAVAILABLE")

    async def embedding_model(self) -> str:
        """See Models; what was read half a minute ago is good enough."""
        tenant_id = principal().tenant_id
        read, model = self._embedding.get(tenant_id, (float("-inf"), ""))
        if time.monotonic() - read > _MODELS_SECONDS:
            with answers():
                reply = await self._llm.ListModels(llm_service_pb2.ListModelsRequest())
            able = (
                each.name
                for each in reply.models
                if provider_pb2.CAPABILITY_EMBEDDINGS in each.capabilities
            )
            model = next(able, "")
            self._embedding[tenant_id] = (time.monotonic(), model)
            self._embedding.move_to_end(tenant_id)
            if len(self._embedding) > _MAX_TENANTS:
                self._embedding.popitem(last=False)
        return model

    async def embed(self, model: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """See Models."""
        request = capability_service_pb2.EmbedRequest(model=model, texts=texts)
        with answers():
            reply = await self._capabilities.Embed(request)
        return [tuple(each.values) for each in reply.embeddings]


def _message(
    text: str, role: model_pb2.MessageRole.ValueType, origin: model_pb2.MessageOrigin.ValueType
) -> model_pb2.ModelMessage:
    return model_pb2.ModelMessage(role=role, text=text, origin=origin)


def _failed(failed: generation_pb2.GenerationFailed) -> Unavailable:
    reason = ErrorReason.Name(failed.reason).removeprefix("ERROR_REASON_")
    return Unavailable(failed.message or "The model failed.", reason=reason)
