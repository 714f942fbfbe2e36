"""What history needs of other modules, and how it gets it: over the contracts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from plexus.errors.v1.errors_pb2 import ErrorReason
from plexus.llm.v1 import generation_pb2, llm_service_pb2, model_pb2
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub
from plexus.memory.v1 import memory_pb2
from plexus.memory.v1 import memory_service_pb2 as memory_service
from plexus.memory.v1.memory_service_pb2_grpc import MemoryServiceStub

from services.history.domain.summary import Finding
from services.runtime.errors import NotFound, Unavailable
from services.runtime.status import remote_errors

_CLASS = "summarisation"
_ROUTE = f"route/{_CLASS}"
_OFFLINE = "offline/"
_REASON_PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class Reader:
    """A model that can read a conversation and answer in JSON.

    Attributes:
        model: What to ask for; empty is the route of the class.
        window: Tokens that the request and the answer share.
    """

    model: str
    window: int


class Models(Protocol):
    """Language models, for the tenant that the current call acts for."""

    async def reader(self, model: str) -> Reader | None:
        """The model to ask; None where it is the offline one, which writes no JSON.

        Raises:
            NotFound: No provider serves a model of this name.
            Unavailable: Models cannot be asked now.
        """
        ...

    async def answer(
        self, reader: Reader, instructions: str, asked: str, schema: Mapping[str, Any]
    ) -> tuple[str, str]:
        """The model that answered, and its answer: JSON of a schema.

        Raises:
            PlexusError: It did not.
        """
        ...


class Memory(Protocol):
    """What agents know, for the user that the current call acts for."""

    async def propose(self, user_id: str, findings: Sequence[Finding], key: str) -> int:
        """Propose facts to a user's space; safe to repeat by its key. How many wait now.

        Raises:
            PlexusError: They were not.
        """
        ...


class RemoteModels:
    """The llm module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = LlmServiceStub(channel)

    async def reader(self, model: str) -> Reader | None:
        """See Models."""
        if model.startswith(_OFFLINE):
            return None
        with remote_errors():
            reply = await self._stub.ListModels(llm_service_pb2.ListModelsRequest())
        known = {each.name: each for each in reply.models}
        default = next((each for each in reply.models if each.default), None)
        found = known.get(model) if model else known.get(_ROUTE) or default
        if found is None:
            raise NotFound("There is no such model.", reason="UNKNOWN_MODEL")
        if found.name.startswith(_OFFLINE):
            return None
        return Reader(model, found.context_window)

    async def answer(
        self, reader: Reader, instructions: str, asked: str, schema: Mapping[str, Any]
    ) -> tuple[str, str]:
        """See Models."""
        request = generation_pb2.GenerateRequest(
            model=reader.model,
            task_class="" if reader.model else _CLASS,
            messages=[
                model_pb2.ModelMessage(
                    role=model_pb2.MESSAGE_ROLE_SYSTEM,
                    origin=model_pb2.MESSAGE_ORIGIN_SYSTEM,
                    text=instructions,
                ),
                # Others wrote it: a model must not take it for orders.
                model_pb2.ModelMessage(
                    role=model_pb2.MESSAGE_ROLE_USER,
                    origin=model_pb2.MESSAGE_ORIGIN_RETRIEVED,
                    text=asked,
                ),
            ],
            temperature=0,
        )
        wanted = request.answer_format.json_schema
        wanted.name = "summary"
        wanted.schema.update(schema)
        call = self._stub.Generate(request)
        text: list[str] = []
        name = reader.model
        try:
            with remote_errors():
                async for event in call:
                    match event.WhichOneof("event"):
                        case "started":
                            name = event.started.model
                        case "switched":
                            name = event.switched.model
                        case "text_delta":
                            text.append(event.text_delta.text)
                        case "failed":
                            reason = ErrorReason.Name(event.failed.reason)
                            raise Unavailable(
                                event.failed.message, reason=reason.removeprefix(_REASON_PREFIX)
                            )
                        case "finished":
                            return name, "".join(text)
        finally:
            call.cancel()
        raise Unavailable("The model's answer was cut off.", reason="MODEL_UNAVAILABLE")


class RemoteMemory:
    """The memory module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = MemoryServiceStub(channel)

    async def propose(self, user_id: str, findings: Sequence[Finding], key: str) -> int:
        """See Memory."""
        request = memory_service.StoreMemoriesRequest(
            space=f"user/{user_id}",
            records=[
                memory_pb2.NewMemory(
                    text=each.text,
                    kind=memory_pb2.MEMORY_KIND_KNOWLEDGE,
                    provenance=[memory_pb2.Provenance(message_id=each.message_id)],
                )
                for each in findings
            ],
            message="Found in a conversation.",
            idempotency_key=key,
            propose=True,
        )
        with remote_errors():
            reply = await self._stub.StoreMemories(request)
        return sum(bool(each.proposal_id) for each in reply.results)
