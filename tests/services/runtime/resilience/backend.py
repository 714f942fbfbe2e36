"""A backend that fails on demand, and who calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from plexus.history.v1 import history_service_pb2 as history_pb
from plexus.history.v1.history_service_pb2_grpc import (
    HistoryServiceStub,
)
from plexus.identity.v1 import identity_service_pb2 as identity_pb
from plexus.identity.v1.identity_service_pb2_grpc import (
    IdentityServiceStub,
)
from plexus.llm.v1 import generation_pb2 as llm_pb
from plexus.llm.v1.llm_service_pb2_grpc import (
    LlmServiceStub,
)

from services.runtime.clients import Clients
from services.runtime.context import CallContext, Principal, serving
from services.runtime.credentials import MeshSigner
from services.runtime.resilience.callee import Bounds, Callee
from services.runtime.status import abort
from tests.support import PORT_OF_ITS_OWN

WHO = Principal("ten_1", "usr_1", "tok_1", frozenset({4}))
GET = history_pb.GetSessionRequest(session_id="ses_1")
Script = Callable[[Any], Awaitable[None]]


def said(text: str) -> llm_pb.GenerateResponse:
    return llm_pb.GenerateResponse(text_delta=llm_pb.TextDelta(text=text))


def texts(messages: list[Any]) -> list[str]:
    return [each.text_delta.text for each in messages]


class Backend:
    """Does what a test says, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.remaining: list[float] = []
        self.script: Script = answer
        self.breaks = False

    async def _called(self, context: Any) -> None:
        self.calls += 1
        self.remaining.append(context.time_remaining())
        await self.script(context)

    async def get_session(self, request: Any, context: Any) -> Any:
        await self._called(context)
        return history_pb.GetSessionResponse()

    async def create_api_key(self, request: Any, context: Any) -> Any:
        await self._called(context)
        return identity_pb.CreateApiKeyResponse()

    async def watch_revocations(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._called(context)
        yield identity_pb.WatchRevocationsResponse(complete=True)
        await asyncio.sleep(3600)

    async def generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._called(context)
        yield said("a")
        if self.breaks:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        yield said("b")


async def answer(_: Any) -> None:
    """Answer at once."""


def failing(times: int, error: Any = None) -> Script:
    """Fails so many times."""
    left = [times]

    async def script(context: Any) -> None:
        if left[0]:
            left[0] -= 1
            if error is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            await abort(context, error)

    return script


@asynccontextmanager
async def listening(backend: Backend, path: Path) -> AsyncIterator[None]:
    server = grpc.aio.server(options=PORT_OF_ITS_OWN)
    handlers: dict[str, dict[str, Any]] = {
        "plexus.history.v1.HistoryService": {
            "GetSession": grpc.unary_unary_rpc_method_handler(
                backend.get_session,
                history_pb.GetSessionRequest.FromString,
                history_pb.GetSessionResponse.SerializeToString,
            )
        },
        "plexus.identity.v1.IdentityService": {
            "CreateApiKey": grpc.unary_unary_rpc_method_handler(
                backend.create_api_key,
                identity_pb.CreateApiKeyRequest.FromString,
                identity_pb.CreateApiKeyResponse.SerializeToString,
            ),
            "WatchRevocations": grpc.unary_stream_rpc_method_handler(
                backend.watch_revocations,
                identity_pb.WatchRevocationsRequest.FromString,
                identity_pb.WatchRevocationsResponse.SerializeToString,
            ),
        },
        "plexus.llm.v1.LlmService": {
            "Generate": grpc.unary_stream_rpc_method_handler(
                backend.generate,
                llm_pb.GenerateRequest.FromString,
                llm_pb.GenerateResponse.SerializeToString,
            )
        },
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(*each) for each in handlers.items()]
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


class Mesh:
    """A backend and the stubs of one who calls it."""

    def __init__(self, backend: Backend, path: Path, bounds: Bounds | None) -> None:
        self.backend = backend
        targets = dict.fromkeys(("history", "identity", "llm"), f"unix:{path}")
        self.clients = Clients(targets, MeshSigner(b"m" * 32), bounds=bounds)
        self.history = HistoryServiceStub(self.clients.channel("history"))
        self.identity = IdentityServiceStub(self.clients.channel("identity"))
        self.llm = LlmServiceStub(self.clients.channel("llm"))

    def callee(self, module: str = "history") -> Callee:
        return next(each for each in self.clients.callees if each.name == module)


@asynccontextmanager
async def running(path: Path, bounds: Bounds | None = None) -> AsyncIterator[Mesh]:
    backend = Backend()
    async with listening(backend, path):
        mesh = Mesh(backend, path, bounds)
        try:
            yield mesh
        finally:
            await mesh.clients.close()
    for callee in mesh.clients.callees:
        assert (callee.calls.used, callee.streams.used) == (0, 0), "a place was lost"


def serving_for(seconds: float) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    return serving(CallContext("r" * 32, "t" * 32, WHO, deadline))
