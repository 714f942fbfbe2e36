"""What agents need of other modules, and how they get it: over the contracts alone."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import grpc
from plexus.errors.v1.errors_pb2 import ErrorReason
from plexus.history.v1 import history_service_pb2 as history_pb
from plexus.history.v1 import session_pb2
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub
from plexus.llm.v1 import generation_pb2, llm_service_pb2, model_pb2
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub

from services.agents.domain import Agent, Citation, Source
from services.runtime.context import principal
from services.runtime.errors import Unavailable
from services.runtime.status import remote_errors

_MODELS_SECONDS = 30.0
_UNKNOWN_SECONDS = 1.0
_MAX_TENANTS = 1_000
_REASON_PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a conversation."""

    by_agent: bool
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """More of an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """How an answer ended; `reason` is set where it failed, and is a name of the contract's."""

    input_tokens: int
    output_tokens: int
    truncated: bool = False
    reason: str = ""
    message: str = ""


class Role(IntEnum):
    """Who a message of a prompt comes from; the numbers are llm's contract's."""

    SYSTEM = model_pb2.MESSAGE_ROLE_SYSTEM
    USER = model_pb2.MESSAGE_ROLE_USER
    ASSISTANT = model_pb2.MESSAGE_ROLE_ASSISTANT
    DEVELOPER = model_pb2.MESSAGE_ROLE_DEVELOPER


class Origin(IntEnum):
    """Where its words come from; the numbers are llm's contract's."""

    SYSTEM = model_pb2.MESSAGE_ORIGIN_SYSTEM
    DEVELOPER = model_pb2.MESSAGE_ORIGIN_DEVELOPER
    USER = model_pb2.MESSAGE_ORIGIN_USER
    MODEL = model_pb2.MESSAGE_ORIGIN_MODEL
    RETRIEVED = model_pb2.MESSAGE_ORIGIN_RETRIEVED


@dataclass(frozen=True, slots=True)
class Part:
    """A message of a prompt."""

    role: Role
    origin: Origin
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is given, and what an answer may cite, in the order of its marks."""

    parts: Sequence[Part]
    sources: Sequence[Source] = ()

    @classmethod
    def plain(cls, instructions: str, conversation: Sequence[Said]) -> Prompt:
        """Instructions and what was said, without anything that was looked up."""
        return cls([Part(Role.SYSTEM, Origin.DEVELOPER, instructions), *map(_part, conversation)])


def _part(said: Said) -> Part:
    if said.by_agent:
        return Part(Role.ASSISTANT, Origin.MODEL, said.text)
    return Part(Role.USER, Origin.USER, said.text)


@dataclass(frozen=True, slots=True)
class Asks:
    """What an agent asks a model, and in which session."""

    agent_id: str
    session_id: str
    model: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Answering:
    """The model that answers; comes before everything else."""

    model: str


class History(Protocol):
    """Where conversations are kept, for the tenant that the current call acts for."""

    async def require_session(self, session_id: str) -> None:
        """Raises NotFound unless the tenant has such a session."""
        ...

    async def append(
        self, *, session_id: str, message_id: str, said: Said, run_id: str, partial: bool
    ) -> bool:
        """Keep a message; True if what is kept under the id is whole. May be repeated."""
        ...

    async def window(self, session_id: str, max_tokens: int) -> Sequence[Said]:
        """The newest messages that fit, oldest first."""
        ...


class Knowledge(Protocol):
    """What has to do with a question, for the caller that the current call acts for."""

    async def prompt(self, agent: Agent, session_id: str, asked: str, max_tokens: int) -> Prompt:
        """What to give a model so that it answers, within so many tokens."""
        ...

    async def citations(self, answer: str, sources: Sequence[Source]) -> Sequence[Citation]:
        """What of the sources stands behind which part of an answer."""
        ...


class Models(Protocol):
    """Language models."""

    async def context_window(self, model: str) -> int:
        """How many tokens a model takes; 0 where no provider serves it."""
        ...

    def answer(self, asks: Asks) -> AsyncGenerator[Answering | Chunk | Finish, None]:
        """An answer as it is written; closing the iterator stops the model."""
        ...


class RemoteHistory:
    """The history module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = HistoryServiceStub(channel)

    async def require_session(self, session_id: str) -> None:
        """See History."""
        with remote_errors():
            await self._stub.GetSession(history_pb.GetSessionRequest(session_id=session_id))

    async def append(
        self, *, session_id: str, message_id: str, said: Said, run_id: str, partial: bool
    ) -> bool:
        """See History."""
        role = session_pb2.AUTHOR_ROLE_AGENT if said.by_agent else session_pb2.AUTHOR_ROLE_USER
        message = session_pb2.Message(
            message_id=message_id,
            session_id=session_id,
            role=role,
            text=said.text,
            run_id=run_id,
            partial=partial,
        )
        with remote_errors():
            kept = await self._stub.AppendMessage(history_pb.AppendMessageRequest(message=message))
        return not kept.message.partial

    async def window(self, session_id: str, max_tokens: int) -> Sequence[Said]:
        """See History."""
        with remote_errors():
            reply = await self._stub.GetWindow(
                history_pb.GetWindowRequest(session_id=session_id, max_tokens=max_tokens)
            )
        return [
            Said(message.role == session_pb2.AUTHOR_ROLE_AGENT, message.text)
            for message in reply.messages
        ]


class RemoteModels:
    """The llm module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = LlmServiceStub(channel)
        # Each tenant has models of its own.
        self._windows: OrderedDict[str, tuple[float, dict[str, int]]] = OrderedDict()

    async def context_window(self, model: str) -> int:
        """See Models."""
        tenant_id = principal().tenant_id
        read, windows = self._windows.get(tenant_id, (-_MODELS_SECONDS, {}))
        age = time.monotonic() - read
        # A model that is not there may have been added a moment ago.
        if age > _MODELS_SECONDS or (model not in windows and age > _UNKNOWN_SECONDS):
            windows = await self._read()
            self._windows[tenant_id] = (time.monotonic(), windows)
            self._windows.move_to_end(tenant_id)
            if len(self._windows) > _MAX_TENANTS:
                self._windows.popitem(last=False)
        return windows.get(model, 0)

    async def _read(self) -> dict[str, int]:
        with remote_errors():
            reply = await self._stub.ListModels(llm_service_pb2.ListModelsRequest())
        windows = {each.name: each.context_window for each in reply.models}
        windows[""] = next(each.context_window for each in reply.models if each.default)
        return windows

    async def answer(self, asks: Asks) -> AsyncGenerator[Answering | Chunk | Finish, None]:
        """See Models."""
        request = generation_pb2.GenerateRequest(
            model=asks.model,
            messages=map(_message, asks.prompt.parts),
            agent_id=asks.agent_id,
            session_id=asks.session_id,
        )
        call = self._stub.Generate(request)
        try:
            with remote_errors():
                async for event in call:
                    decoded = _decode(event)
                    if decoded is not None:
                        yield decoded
                    if isinstance(decoded, Finish):
                        return
        finally:
            call.cancel()
        raise Unavailable("The model's answer was cut off.", reason="MODEL_UNAVAILABLE")


def _message(part: Part) -> model_pb2.ModelMessage:
    return model_pb2.ModelMessage(
        role=model_pb2.MessageRole.ValueType(part.role),
        origin=model_pb2.MessageOrigin.ValueType(part.origin),
        text=part.text,
    )


def _decode(event: generation_pb2.GenerateResponse) -> Answering | Chunk | Finish | None:
    match event.WhichOneof("event"):
        case "started":
            return Answering(event.started.model)
        case "text_delta":
            return Chunk(event.text_delta.text)
        case "finished":
            usage = event.finished.usage
            cut = event.finished.finish_reason != model_pb2.FINISH_REASON_STOP
            return Finish(usage.input_tokens, usage.output_tokens, truncated=cut)
        case "failed":
            usage = event.failed.usage
            return Finish(
                usage.input_tokens,
                usage.output_tokens,
                reason=ErrorReason.Name(event.failed.reason).removeprefix(_REASON_PREFIX),
                message=event.failed.message,
            )
        case _:
            return None
