"""Requests for answers, and the events of answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from plexus.llm.v1 import generation_pb2 as pb
from plexus.llm.v1 import model_pb2, provider_pb2, route_pb2

from services.llm.convert.messages import schema_of
from services.llm.domain.generation import (
    AnswerFormat,
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    Image,
    Message,
    Model,
    Origin,
    Prompt,
    Role,
    Started,
    Switched,
    Tool,
    ToolCall,
    ToolChoice,
    ToolDelta,
    Usage,
)
from services.llm.domain.routing import Capability, Limits, Passed, Price
from services.llm.service.choosing import Ask

_ROLES = {
    model_pb2.MESSAGE_ROLE_SYSTEM: Role.SYSTEM,
    model_pb2.MESSAGE_ROLE_USER: Role.USER,
    model_pb2.MESSAGE_ROLE_ASSISTANT: Role.ASSISTANT,
    model_pb2.MESSAGE_ROLE_DEVELOPER: Role.DEVELOPER,
    model_pb2.MESSAGE_ROLE_TOOL: Role.TOOL,
}
_MODES = {
    model_pb2.TOOL_MODE_AUTO: "auto",
    model_pb2.TOOL_MODE_REQUIRED: "required",
    model_pb2.TOOL_MODE_NONE: "none",
}
_FINISH = {
    FinishReason.STOP: model_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: model_pb2.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: model_pb2.FINISH_REASON_CONTENT_FILTER,
    FinishReason.TOOL_CALLS: model_pb2.FINISH_REASON_TOOL_CALLS,
}


def to_ask(request: pb.GenerateRequest) -> Ask:
    """What a request asks.

    Raises:
        InvalidRequest: It names a message type that there is not.
    """
    digest = ""
    if request.idempotency_key:
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    return Ask(
        prompt=_prompt(request),
        model=request.model,
        task_class=request.task_class,
        limits=to_limits(request.limits),
        switch_midway=request.switch_midway,
        key=request.idempotency_key,
        digest=digest,
        agent_id=request.agent_id,
        session_id=request.session_id,
    )


def _prompt(request: pb.GenerateRequest) -> Prompt:
    def given(name: str) -> float | None:
        return getattr(request, name) if request.HasField(name) else None  # type: ignore[arg-type]

    most = given("max_output_tokens")
    return Prompt(
        messages=tuple(map(_message, request.messages)),
        max_output_tokens=None if most is None else int(most),
        temperature=given("temperature"),
        top_p=given("top_p"),
        stop=tuple(request.stop),
        tools=tuple(map(_tool, request.tools)),
        tool_choice=_choice(request.tool_choice) if request.HasField("tool_choice") else None,
        answer_format=_format(request.answer_format) if request.HasField("answer_format") else None,
    )


def _message(message: model_pb2.ModelMessage) -> Message:
    return Message(
        role=_ROLES[message.role],
        text=message.text,
        origin=Origin(message.origin),
        images=tuple(Image(each.data, each.media_type, each.url) for each in message.images),
        tool_calls=tuple(
            ToolCall(each.tool_call_id, each.name, each.arguments) for each in message.tool_calls
        ),
        tool_call_id=message.tool_call_id,
    )


def _tool(tool: model_pb2.Tool) -> Tool:
    return Tool(tool.name, tool.description, _plain(tool.parameters))


def _choice(choice: model_pb2.ToolChoice) -> ToolChoice:
    if choice.WhichOneof("choice") == "name":
        return ToolChoice(name=choice.name)
    return ToolChoice(_MODES[choice.mode])


def _format(wanted: model_pb2.AnswerFormat) -> AnswerFormat:
    kind = wanted.WhichOneof("format")
    if kind == "json_schema":
        return AnswerFormat(wanted.json_schema.name, _plain(wanted.json_schema.schema))
    if kind == "message_type":
        name = wanted.message_type
        return AnswerFormat(name.rpartition(".")[2], schema_of(name))
    return AnswerFormat()


def _plain(struct: Struct) -> dict[str, object]:
    """A Struct as Python has it, whole numbers being integers, as JSON schemas want them."""
    return _whole(json_format.MessageToDict(struct))  # type: ignore[return-value]


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return value


def to_limits(limits: route_pb2.RouteLimits) -> Limits:
    """Bounds on who may serve."""
    return Limits(limits.max_cost, limits.max_first_token_ms)


def from_model(model: Model, *, default: bool) -> model_pb2.Model:
    """A model as the contract has it."""
    return model_pb2.Model(
        name=model.name,
        provider=model.provider,
        context_window=model.context_window,
        default=default,
        capabilities=from_capabilities(model.capabilities),
        price=from_price(model.price),
    )


def from_capabilities(
    capabilities: Iterable[Capability],
) -> list[provider_pb2.Capability.ValueType]:
    """Capabilities as the contract has them, in its order."""
    numbers = sorted(each.value for each in capabilities)
    return [provider_pb2.Capability.ValueType(each) for each in numbers]


def from_price(price: Price) -> provider_pb2.ModelPrice:
    """A price as the contract has it."""
    return provider_pb2.ModelPrice(input=price.input, output=price.output)


def from_event(event: Event) -> pb.GenerateResponse:
    """An event as the contract has it."""
    match event:
        case Delta(text):
            return pb.GenerateResponse(text_delta=pb.TextDelta(text=text))
        case ToolDelta(index, tool_call_id, name, arguments):
            delta = pb.ToolCallDelta(
                index=index, tool_call_id=tool_call_id, name=name, arguments=arguments
            )
            return pb.GenerateResponse(tool_call_delta=delta)
        case Started():
            return pb.GenerateResponse(started=_started(event))
        case Switched(model, passed):
            switched = pb.GenerationSwitched(model=model, passed=_passed(passed))
            return pb.GenerateResponse(switched=switched)
        case Finished(reason, usage):
            finished = pb.GenerationFinished(
                finish_reason=_FINISH[reason], usage=from_usage(usage) if usage else None
            )
            return pb.GenerateResponse(finished=finished)
        case Failed(error, usage):
            failed = pb.GenerationFailed(
                reason=error.reason_number, message=error.message, usage=from_usage(usage)
            )
            return pb.GenerateResponse(failed=failed)


def _started(event: Started) -> pb.GenerationStarted:
    return pb.GenerationStarted(
        model=event.model,
        route=event.route,
        policy=route_pb2.RoutePolicy.ValueType(event.policy.value if event.policy else 0),
        passed=map(_passed, event.passed),
        task_class=event.task_class,
        classifier=pb.Classifier.ValueType(event.classifier.value),
        generation_id=event.generation_id,
        repeated_call=event.repeated,
    )


def _passed(passed: Passed) -> route_pb2.Passed:
    return route_pb2.Passed(
        model=passed.model, reason=route_pb2.PassedReason.ValueType(passed.why.value)
    )


def from_usage(usage: Usage) -> model_pb2.TokenUsage:
    """What was taken, as the contract has it."""
    return model_pb2.TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        estimated=usage.estimated,
        cost=usage.cost,
    )
