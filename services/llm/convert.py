"""The contract's messages to this module's values and back."""

from __future__ import annotations

from plexus.llm.v1 import llm_service_pb2 as pb
from plexus.llm.v1 import model_pb2

from services.llm.domain import (
    Delta,
    Event,
    Finished,
    FinishReason,
    Message,
    Model,
    Prompt,
    Role,
    Started,
    Usage,
)

_ROLES = {
    model_pb2.MESSAGE_ROLE_SYSTEM: Role.SYSTEM,
    model_pb2.MESSAGE_ROLE_USER: Role.USER,
    model_pb2.MESSAGE_ROLE_ASSISTANT: Role.ASSISTANT,
}
_FINISH = {
    FinishReason.STOP: model_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: model_pb2.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: model_pb2.FINISH_REASON_CONTENT_FILTER,
}


def to_prompt(request: pb.GenerateRequest) -> Prompt:
    """What a request asks."""
    return Prompt(
        messages=tuple(Message(_ROLES[each.role], each.text) for each in request.messages),
        max_output_tokens=(
            request.max_output_tokens if request.HasField("max_output_tokens") else None
        ),
        temperature=request.temperature if request.HasField("temperature") else None,
    )


def from_model(model: Model, default: bool) -> model_pb2.Model:
    """A model as the contract has it."""
    return model_pb2.Model(
        name=model.name,
        provider=model.provider,
        context_window=model.context_window,
        default=default,
    )


def from_event(event: Event) -> pb.GenerateResponse:
    """An event as the contract has it."""
    if isinstance(event, Started):
        return pb.GenerateResponse(started=pb.GenerationStarted(model=event.model))
    if isinstance(event, Delta):
        return pb.GenerateResponse(text_delta=pb.TextDelta(text=event.text))
    if isinstance(event, Finished):
        finished = pb.GenerationFinished(
            finish_reason=_FINISH[event.reason], usage=_from_usage(event.usage)
        )
        return pb.GenerateResponse(finished=finished)
    failed = pb.GenerationFailed(
        reason=event.error.reason_number,
        message=event.error.message,
        usage=_from_usage(event.usage),
    )
    return pb.GenerateResponse(failed=failed)


def _from_usage(usage: Usage | None) -> model_pb2.TokenUsage | None:
    if usage is None:
        return None
    return model_pb2.TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        estimated=usage.estimated,
    )
