"""A call means the same by a socket and within a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc
import pytest
from plexus.history.v1 import history_service_pb2 as history_pb
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub
from plexus.llm.v1 import generation_pb2 as llm_pb
from plexus.llm.v1 import model_pb2
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub

from services.runtime.clients import MAX_MESSAGE_BYTES, Clients
from services.runtime.context import CallContext, Principal, current, serving
from services.runtime.contract import module_methods
from services.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    PlexusError,
    ResourceExhausted,
    Unavailable,
)
from services.runtime.local import LocalServices
from services.runtime.server import Server
from services.runtime.status import remote_errors
from services.runtime.topology import Address
from tests.services.runtime.resilience.served import SIGNER, Tokens

WHO = Principal("ten_1", "usr_1", "tok_1", frozenset({4}))
GET = history_pb.GetSessionRequest(session_id="ses_1")
ASK = llm_pb.GenerateRequest(
    messages=[model_pb2.ModelMessage(role=model_pb2.MESSAGE_ROLE_USER, text="hi")]
)
_mark: ContextVar[str] = ContextVar("mark", default="")


def add(server: Server, service: str, handlers: dict[str, Any]) -> None:
    """Register as generated code does."""
    generic = grpc.method_handlers_generic_handler(service, handlers)
    server.registrar.add_generic_rpc_handlers((generic,))
    server.registrar.add_registered_method_handlers(service, handlers)


class Sessions:
    """Does what a test says."""

    def __init__(self) -> None:
        self.seen: list[tuple[CallContext, str]] = []
        self.error: Exception | None = None
        self.kept = history_pb.GetSessionResponse()
        self.seconds = 0.0
        self.cut = asyncio.Event()

    def register(self, server: Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            self.get_session,
            history_pb.GetSessionRequest.FromString,
            history_pb.GetSessionResponse.SerializeToString,
        )
        add(server, "plexus.history.v1.HistoryService", {"GetSession": handler})

    async def get_session(self, request: Any, context: Any) -> Any:
        self.seen.append((current(), _mark.get()))
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cut.set()
            raise
        if self.error is not None:
            raise self.error
        self.kept.session.session_id = request.session_id
        return self.kept


class Words:
    """Writes what a test says, and counts."""

    def __init__(self) -> None:
        self.words = ["a"] * 3
        self.error: Exception | None = None
        self.written = 0
        self.gone = asyncio.Event()

    def register(self, server: Server) -> None:
        handler = grpc.unary_stream_rpc_method_handler(
            self.generate,
            llm_pb.GenerateRequest.FromString,
            llm_pb.GenerateResponse.SerializeToString,
        )
        add(server, "plexus.llm.v1.LlmService", {"Generate": handler})

    async def generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for word in self.words:
                self.written += 1
                yield llm_pb.GenerateResponse(text_delta=llm_pb.TextDelta(text=word))
            if self.error is not None:
                raise self.error
        finally:
            self.gone.set()


class Near:
    """A server and who calls it from within."""

    def __init__(self, server: Server, clients: Clients) -> None:
        self.server = server
        self.sessions, self.words = Sessions(), Words()
        self.sessions.register(server)
        self.words.register(server)
        self.history = HistoryServiceStub(clients.channel("history"))
        self.llm = LlmServiceStub(clients.channel("llm"))


@asynccontextmanager
async def running(folder: Path, way: str) -> AsyncIterator[Near]:
    methods = {**module_methods("history"), **module_methods("llm")}
    local = LocalServices(MAX_MESSAGE_BYTES)
    server = Server(methods, Tokens(), SIGNER, local=local)
    names = ("history", "llm")
    targets = dict.fromkeys(names, f"unix:{folder}/s")
    clients = Clients(targets, SIGNER, local=local, neighbours=names if way == "local" else ())
    near = Near(server, clients)
    await server.start(Address(path=folder / "s"), {})
    loop = asyncio.get_running_loop()
    try:
        with serving(CallContext("r" * 32, "t" * 32, principal=WHO, deadline=loop.time() + 20)):
            yield near
    finally:
        await clients.close()
        await server.stop(0)


@pytest.fixture(params=["socket", "local"])
async def near(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Near]:
    async with running(tmp_path, request.param) as found:
        yield found


async def texts(call: Any) -> list[str]:
    with remote_errors():
        return [each.text_delta.text async for each in call]


async def test_who_calls_goes_along_and_nothing_else(near: Near) -> None:
    _mark.set("the caller's")
    reply = await near.history.GetSession(GET)
    assert reply.session.session_id == "ses_1"
    ((call, mark),) = near.sessions.seen
    assert call.principal is not None
    assert (call.principal.tenant_id, call.principal.mesh) == ("ten_1", True)
    assert (call.request_id, mark) == ("r" * 32, "")
    assert current().principal is WHO


async def test_a_reply_is_the_callers_own(near: Near) -> None:
    reply = await near.history.GetSession(GET)
    near.sessions.kept.session.session_id = "changed"
    assert reply.session.session_id == "ses_1"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ResourceExhausted("Wait.", metadata={"limit": "x"}, retry_after=7), ResourceExhausted),
        (ValueError("a secret"), Internal),
    ],
)
async def test_an_error_is_what_it_was(near: Near, raised: Any, kind: type[PlexusError]) -> None:
    near.sessions.error = raised
    with pytest.raises(kind) as found, remote_errors():
        await near.history.GetSession(GET)
    assert found.value.retry_after == getattr(raised, "retry_after", None)
    assert "secret" not in str(found.value)


async def test_a_request_that_breaks_the_contract_is_refused(near: Near) -> None:
    with pytest.raises(InvalidRequest) as found, remote_errors():
        await near.history.GetSession(history_pb.GetSessionRequest())
    assert [each.field for each in found.value.violations] == ["session_id"]
    assert not near.sessions.seen


async def test_a_stream_comes_in_order_and_breaks_after_what_was_written(near: Near) -> None:
    near.words.words = [str(number) for number in range(1000)]
    assert await texts(near.llm.Generate(ASK)) == near.words.words
    near.words.error = Unavailable("Gone.", reason="MODEL_UNAVAILABLE")
    near.words.words = ["a", "b"]
    heard = []
    with pytest.raises(Unavailable) as found, remote_errors():
        async for each in near.llm.Generate(ASK):
            heard.append(each.text_delta.text)
    assert (heard, found.value.reason) == (["a", "b"], "MODEL_UNAVAILABLE")


async def test_a_reader_that_stops_stops_the_writer(near: Near) -> None:
    near.words.words = ["x" * 10_000] * 10_000
    call = near.llm.Generate(ASK)
    await anext(aiter(call))
    before = 0
    async with asyncio.timeout(10):
        while before != near.words.written:
            before = near.words.written
            await asyncio.sleep(0.3)
    assert before < len(near.words.words)
    call.cancel()
    async with asyncio.timeout(2):
        await near.words.gone.wait()


@pytest.mark.parametrize("leaving", ["cancel", "task"])
async def test_whoever_leaves_ends_the_call(near: Near, leaving: str) -> None:
    near.sessions.seconds = 60
    call: Any = near.history.GetSession(GET)

    async def wait() -> None:
        await call

    if leaving == "cancel":
        await asyncio.sleep(0.1)
        assert call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED
    else:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(2):
        await near.sessions.cut.wait()


async def test_a_deadline_cuts_it_off(near: Near) -> None:
    near.sessions.seconds = 60
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded), remote_errors():
        await near.history.GetSession(GET, timeout=0.3)
    assert asyncio.get_running_loop().time() - began < 2
    async with asyncio.timeout(2):
        await near.sessions.cut.wait()


async def test_what_is_too_long_is_refused(near: Near) -> None:
    near.words.words = ["x" * (MAX_MESSAGE_BYTES + 1)]
    with pytest.raises(ResourceExhausted):
        await texts(near.llm.Generate(ASK))


async def test_a_server_that_stops_cuts_off_what_is_under_way(near: Near) -> None:
    near.sessions.seconds = 60
    call: Any = near.history.GetSession(GET)
    await asyncio.sleep(0.1)
    await near.server.stop(0)
    with pytest.raises(Unavailable), remote_errors():
        await call
    with pytest.raises(Unavailable), remote_errors():
        await near.history.GetSession(GET)


async def test_who_waits_for_it_is_answered_when_it_is_there(tmp_path: Path) -> None:
    local = LocalServices(MAX_MESSAGE_BYTES)
    server = Server(module_methods("history"), Tokens(), SIGNER, local=local)
    clients = Clients(
        {"history": f"unix:{tmp_path}/s"}, SIGNER, local=local, neighbours=("history",)
    )
    Sessions().register(server)
    stub: Any = HistoryServiceStub(clients.channel("history"))
    waiting = asyncio.ensure_future(_answered(stub.GetSession(GET, wait_for_ready=True)))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.GetSession(GET, timeout=0.2)
    assert not waiting.done()
    await server.start(Address(path=tmp_path / "s"), {})
    assert (await waiting).session.session_id == "ses_1"
    await clients.close()
    await server.stop(0)


async def _answered(call: Any) -> Any:
    return await call
