"""What interop needs of other modules, and how it gets it: over the contracts alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import struct_pb2
from plexus.agents.v1 import agent_pb2, run_pb2
from plexus.agents.v1 import agents_service_pb2 as agents_pb
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub
from plexus.errors.v1.errors_pb2 import ErrorReason
from plexus.llm.v1 import capability_service_pb2, generation_pb2, llm_service_pb2, model_pb2
from plexus.llm.v1.capability_service_pb2_grpc import CapabilityServiceStub
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub

from services.interop.domain.values import (
    Asked,
    AskedVectors,
    Broken,
    Event,
    Finished,
    Format,
    Image,
    Message,
    Named,
    RunView,
    Started,
    Text,
    Tool,
    ToolDelta,
    Usage,
)
from services.runtime.errors import NotFound, PlexusError, Unavailable
from services.runtime.status import remote_errors

_REASON_PREFIX = "ERROR_REASON_"
_AGENT = "agent/"
_PAGE = 100
_CANCELLED = Broken("CANCELLED", "The run was cancelled.", cancelled=True)
_ROLES = {
    "system": model_pb2.MESSAGE_ROLE_SYSTEM,
    "developer": model_pb2.MESSAGE_ROLE_DEVELOPER,
    "user": model_pb2.MESSAGE_ROLE_USER,
    "assistant": model_pb2.MESSAGE_ROLE_ASSISTANT,
    "tool": model_pb2.MESSAGE_ROLE_TOOL,
}
# The program that asks wrote the first two; what its user typed comes as a user's.
_ORIGINS = {
    "system": model_pb2.MESSAGE_ORIGIN_DEVELOPER,
    "developer": model_pb2.MESSAGE_ORIGIN_DEVELOPER,
    "user": model_pb2.MESSAGE_ORIGIN_USER,
    "assistant": model_pb2.MESSAGE_ORIGIN_MODEL,
    "tool": model_pb2.MESSAGE_ORIGIN_TOOL,
}
_MODES = {
    "auto": model_pb2.TOOL_MODE_AUTO,
    "required": model_pb2.TOOL_MODE_REQUIRED,
    "none": model_pb2.TOOL_MODE_NONE,
}
_FINISH = {
    model_pb2.FINISH_REASON_STOP: "stop",
    model_pb2.FINISH_REASON_LENGTH: "length",
    model_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    model_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
}


class RemoteModels:
    """The llm module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._models = LlmServiceStub(channel)
        self._capabilities = CapabilityServiceStub(channel)

    async def listed(self) -> list[Named]:
        """Every model and route."""
        with remote_errors():
            reply = await self._models.ListModels(llm_service_pb2.ListModelsRequest())
        return [Named(each.name, each.provider) for each in reply.models]

    async def answer(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """An answer as it is written; closing the iterator stops the model.

        Raises:
            PlexusError: Nobody answers, or the answer breaks off.
        """
        call = self._models.Generate(_request(asked))
        try:
            with remote_errors():
                async for event in call:
                    decoded = _decoded(event)
                    if decoded is not None:
                        yield decoded
                    if isinstance(decoded, Finished):
                        return
        finally:
            call.cancel()
        raise Unavailable("The model's answer was cut off.", reason="MODEL_UNAVAILABLE")

    async def vectors(self, asked: AskedVectors) -> tuple[str, Sequence[Sequence[float]], Usage]:
        """Vectors, and the model that made them."""
        request = capability_service_pb2.EmbedRequest(model=asked.model, texts=asked.texts)
        if asked.dimensions is not None:
            request.dimensions = asked.dimensions
        with remote_errors():
            reply = await self._capabilities.Embed(request)
        found = [list(each.values) for each in reply.embeddings]
        return reply.model, found, _usage(reply.usage)


class RemoteAgents:
    """The agents module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = AgentsServiceStub(channel)

    async def listed(self) -> list[Named]:
        """Every agent of the tenant, by its name in requests."""
        return [Named(_name(each), "plexus") for each in await self._every()]

    async def _every(self) -> list[agent_pb2.Agent]:
        found: list[agent_pb2.Agent] = []
        token = ""
        while True:
            with remote_errors():
                page = await self._stub.ListAgents(
                    agents_pb.ListAgentsRequest(page_size=_PAGE, page_token=token)
                )
            found += page.agents
            token = page.next_page_token
            if not token:
                return found

    async def find(self, name: str) -> str:
        """The id of an agent by its id, its name, or `default`.

        Raises:
            NotFound: UNKNOWN_MODEL: there is no such agent, or more than one of the name.
        """
        wanted = name.removeprefix(_AGENT)
        every = await self._every()
        found = [each.agent_id for each in every if wanted in (each.agent_id, _slug(each))]
        if wanted == "default":
            found = [each.agent_id for each in every if each.default] or found
        if len(found) != 1:
            raise NotFound(
                f"There is no agent {wanted!r}." if not found else f"{wanted!r} is ambiguous.",
                reason="UNKNOWN_MODEL",
                metadata={"model": name},
            )
        return found[0]

    async def answer(
        self, agent_id: str, asked: Asked, text: str
    ) -> AsyncGenerator[Event | Broken, None]:
        """A run as it goes; closing the iterator leaves it to itself.

        Raises:
            PlexusError: It was not accepted, or its events were cut off.
        """
        request = agents_pb.ProcessRequest(
            input=text, agent_id=agent_id, session_id=asked.session_id
        )
        async with aclosing(_happenings(self._stub.Process(request), asked.model)) as events:
            async for event in events:
                yield event

    async def watch(self, run: RunView) -> AsyncGenerator[Event | Broken, None]:
        """A run from its beginning to its end.

        Raises:
            PlexusError: Its events were cut off.
        """
        call = self._stub.WatchRun(agents_pb.WatchRunRequest(run_id=run.started.answer_id))
        async with aclosing(_happenings(call, run.started.model)) as events:
            async for event in events:
                yield event

    async def run(self, run_id: str) -> RunView:
        """A run as it stands.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        with remote_errors():
            reply = await self._stub.GetRun(agents_pb.GetRunRequest(run_id=run_id))
        return _view(reply.run)

    async def cancel(self, run_id: str) -> RunView:
        """A run after somebody wanted it to end.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        with remote_errors():
            reply = await self._stub.CancelRun(agents_pb.CancelRunRequest(run_id=run_id))
        return _view(reply.run)


async def _happenings(call: Any, model: str) -> AsyncGenerator[Event | Broken, None]:
    """A run's events as this protocol has them.

    Raises:
        PlexusError: The run was not accepted, or its events were cut off.
    """
    usage = Usage()
    try:
        with remote_errors():
            async for event in call:
                match event.WhichOneof("event"):
                    case "run_started":
                        yield Started(event.run_id, model, event.run_started.session_id)
                    case "text_delta":
                        yield Text(event.text_delta.text)
                    case "usage":
                        usage = _usage(event.usage)
                    case "run_completed":
                        yield _completed(usage, cut=event.run_completed.truncated)
                        return
                    case "run_failed":
                        yield _broken(event.run_failed)
                        return
                    case "run_cancelled":
                        yield _CANCELLED
                        return
    finally:
        call.cancel()
    raise Unavailable("The run's events were cut off. Read the session for its answer.")


def _view(run: run_pb2.Run) -> RunView:
    started = Started(run.run_id, _AGENT + run.agent_id, run.session_id)
    end: Finished | Broken | None = None
    if run.state == run_pb2.RUN_STATE_COMPLETED:
        end = _completed(_usage(run.usage), cut=False)
    elif run.state == run_pb2.RUN_STATE_FAILED:
        end = _broken(run.failure)
    elif run.state == run_pb2.RUN_STATE_CANCELLED:
        end = _CANCELLED
    return RunView(started, run.create_time.seconds, run.input, run.output, end)


def _completed(usage: Usage, *, cut: bool) -> Finished:
    return Finished("length" if cut else "stop", usage)


def _broken(failed: run_pb2.RunFailed) -> Broken:
    reason = ErrorReason.Name(failed.reason).removeprefix(_REASON_PREFIX)
    return Broken(reason, failed.message)


def _name(agent: agent_pb2.Agent) -> str:
    return _AGENT + (_slug(agent) or agent.agent_id)


def _slug(agent: agent_pb2.Agent) -> str:
    """A display name as one word: `Help Desk` is `help-desk`."""
    words = "".join(each if each.isalnum() else " " for each in agent.display_name.casefold())
    return "-".join(words.split())


def _request(asked: Asked) -> generation_pb2.GenerateRequest:
    request = generation_pb2.GenerateRequest(
        model=asked.model,
        messages=map(_message, asked.messages),
        max_output_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=asked.stop,
        tools=map(_tool, asked.tools),
    )
    if asked.tool_choice.startswith("name:"):
        request.tool_choice.name = asked.tool_choice.removeprefix("name:")
    elif asked.tool_choice:
        request.tool_choice.mode = _MODES[asked.tool_choice]
    if asked.answer_format is not None:
        request.answer_format.CopyFrom(_format(asked.answer_format))
    return request


def _message(message: Message) -> model_pb2.ModelMessage:
    return model_pb2.ModelMessage(
        role=_ROLES[message.role],
        text=message.text,
        origin=_ORIGINS[message.role],
        images=map(_image, message.images),
        tool_calls=[
            model_pb2.ToolCall(tool_call_id=each.call_id, name=each.name, arguments=each.arguments)
            for each in message.tool_calls
        ],
        tool_call_id=message.tool_call_id,
    )


def _image(image: Image) -> model_pb2.Image:
    if image.url:
        return model_pb2.Image(url=image.url)
    return model_pb2.Image(data=image.data, media_type=image.media_type)


def _tool(tool: Tool) -> model_pb2.Tool:
    parameters = struct_pb2.Struct()
    parameters.update(tool.parameters)
    return model_pb2.Tool(name=tool.name, description=tool.description, parameters=parameters)


def _format(wanted: Format) -> model_pb2.AnswerFormat:
    if wanted.schema is None:
        return model_pb2.AnswerFormat(json_object=True)
    schema = struct_pb2.Struct()
    schema.update(wanted.schema)
    return model_pb2.AnswerFormat(json_schema=model_pb2.JsonSchema(name=wanted.name, schema=schema))


def _decoded(event: generation_pb2.GenerateResponse) -> Event | None:
    match event.WhichOneof("event"):
        case "started":
            return Started(event.started.generation_id, event.started.model)
        case "text_delta":
            return Text(event.text_delta.text)
        case "tool_call_delta":
            delta = event.tool_call_delta
            return ToolDelta(delta.index, delta.tool_call_id, delta.name, delta.arguments)
        case "finished":
            return Finished(
                _FINISH.get(event.finished.finish_reason, "stop"), _usage(event.finished.usage)
            )
        case "failed":
            raise _failed(event.failed.reason, event.failed.message)
        case _:
            return None


def _usage(usage: model_pb2.TokenUsage | run_pb2.Usage) -> Usage:
    return Usage(usage.input_tokens, usage.output_tokens)


def _failed(reason: ErrorReason.ValueType, message: str) -> PlexusError:
    name = ErrorReason.Name(reason).removeprefix(_REASON_PREFIX)
    return Unavailable(message, reason=name)
