"""The module as it is served: real interceptors, a Unix socket, generated stubs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from plexus.errors.v1 import errors_pb2
from plexus.llm.v1 import generation_pb2 as pb
from plexus.llm.v1 import llm_service_pb2, model_pb2
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub
from plexus.options.v1.options_pb2 import Role

from services.app import serve
from services.runtime.clients import Clients
from services.runtime.context import Principal, acting_as
from services.runtime.credentials import MeshSigner
from services.runtime.crypto import MasterKey
from services.runtime.errors import Code
from services.runtime.status import from_rpc_error
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.conftest import KEY
from tests.services.llm.scripted_openai import ScriptedOpenAi
from tests.support import Served, served, settings_in

USER = model_pb2.MESSAGE_ROLE_USER
MEMBER = Principal("ten_1", "usr_1", "c", frozenset({Role.ROLE_MEMBER}))


@pytest.fixture
async def offline(tmp_path: Path) -> AsyncIterator[Served]:
    """The module as a fresh machine has it."""
    async with served(settings_in(tmp_path), ["llm"]) as mesh:
        yield mesh


@pytest.fixture(autouse=True)
def member() -> Iterator[None]:
    """Somebody who calls."""
    with acting_as(MEMBER):
        yield


@pytest.fixture
async def online(
    tmp_path: Path, upstream: ScriptedOpenAi, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """The module with a model server."""
    for name, value in {"URL": upstream.url, "KEY": KEY, "MODEL": "lab/tiny"}.items():
        monkeypatch.setenv(f"PLEXUS_LLM_{name}", value)
    monkeypatch.setenv("PLEXUS_LLM_CONTEXT_WINDOW", "4096")
    async with served(settings_in(tmp_path), ["llm"]) as mesh:
        yield mesh


def stub(mesh: Served) -> LlmServiceStub:
    return LlmServiceStub(mesh.clients.channel("llm"))


def ask(text: str = "Hello", model: str = "", **values: Any) -> pb.GenerateRequest:
    messages = [model_pb2.ModelMessage(role=USER, text=text)]
    return pb.GenerateRequest(model=model, messages=messages, **values)


async def replies(mesh: Served, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
    return [reply async for reply in stub(mesh).Generate(request)]


def text_of(given: Sequence[pb.GenerateResponse]) -> str:
    return "".join(each.text_delta.text for each in given)


def assert_grammar(given: Sequence[pb.GenerateResponse]) -> None:
    kinds = [each.WhichOneof("event") for each in given]
    assert kinds[0] == "started"
    assert set(kinds[1:-1]) <= {"text_delta"}
    assert kinds[-1] in ("finished", "failed")
    assert all(each.text_delta.text for each in given[1:-1])


async def refusal(mesh: Served, request: pb.GenerateRequest) -> tuple[Code, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await replies(mesh, request)
    error = from_rpc_error(raised.value)
    return error.code, error.reason, error.message


async def test_a_fresh_machine_has_the_offline_model(offline: Served) -> None:
    models = (await stub(offline).ListModels(llm_service_pb2.ListModelsRequest())).models
    assert [(each.name, each.provider, each.default) for each in models] == [
        ("offline/extractive", "offline", True),
        ("route/default", "route", False),
    ]
    assert models[0].context_window == 50_000


@pytest.mark.parametrize("model", ["", "offline/extractive"])
async def test_the_first_hello(offline: Served, model: str) -> None:
    given = await replies(offline, ask("Hello, what can you do?", model))
    assert_grammar(given)
    assert given[0].started.model == "offline/extractive"
    assert text_of(given).startswith("Hello! I am offline/extractive")
    assert len(given) > 10
    finished = given[-1].finished
    assert finished.finish_reason == model_pb2.FINISH_REASON_STOP
    assert finished.usage.estimated
    assert finished.usage.output_tokens > 100


async def test_a_conversation_is_answered_from_itself(offline: Served) -> None:
    request = ask("My name is Ada.")
    request.messages.add(role=model_pb2.MESSAGE_ROLE_ASSISTANT, text="Welcome.")
    request.messages.add(role=USER, text="What is my name?")
    assert "From your earlier message: “My name is Ada.”" in text_of(
        await replies(offline, request)
    )


async def test_max_output_tokens_cuts(offline: Served) -> None:
    given = await replies(offline, ask(max_output_tokens=3))
    assert text_of(given) == "Hello! I am "
    assert given[-1].finished.finish_reason == model_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize("name", ["offline/other", "openai/lab/tiny", "nonsense"])
async def test_an_unknown_model(offline: Served, name: str) -> None:
    code, reason, message = await refusal(offline, ask(model=name))
    assert (code, reason) == (Code.NOT_FOUND, "UNKNOWN_MODEL")
    assert name in message


async def test_the_contracts_rules_hold(offline: Served) -> None:
    for request in (
        pb.GenerateRequest(),
        ask(temperature=3),
        ask(max_output_tokens=0),
        pb.GenerateRequest(messages=[model_pb2.ModelMessage(text="no role")]),
    ):
        assert (await refusal(offline, request))[:2] == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_who_may_call(offline: Served) -> None:
    viewer = Principal("ten_1", "usr_1", "c", frozenset({Role.ROLE_VIEWER}))
    with acting_as(viewer):
        assert (await stub(offline).ListModels(llm_service_pb2.ListModelsRequest())).models
        assert (await refusal(offline, ask()))[:2] == (Code.PERMISSION_DENIED, "PERMISSION_DENIED")
    async with grpc.aio.insecure_channel(f"unix:{offline.settings.socket}") as nobody:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await LlmServiceStub(nobody).ListModels(llm_service_pb2.ListModelsRequest())
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_configured_model_is_the_default(
    online: Served, upstream: ScriptedOpenAi
) -> None:
    models = (await stub(online).ListModels(llm_service_pb2.ListModelsRequest())).models
    assert [(each.name, each.default, each.context_window) for each in models] == [
        ("openai/lab/tiny", True, 4096),
        ("offline/extractive", False, 50_000),
        ("route/default", False, 4096),
    ]
    for name in ("", "openai/lab/tiny", "lab/tiny"):
        given = await replies(online, ask(model=name, temperature=0.7, max_output_tokens=9))
        assert_grammar(given)
        assert given[0].started.model == "openai/lab/tiny"
        assert text_of(given) == "Hello, world."
        usage = given[-1].finished.usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (11, 4, False)
    assert upstream.last.body["model"] == "lab/tiny"
    assert upstream.last.body["temperature"] == 0.7
    assert upstream.last.body["max_tokens"] == 9
    given = await replies(online, ask(model="offline/extractive"))
    assert given[0].started.model == "offline/extractive"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (scripts.status(400), Code.INVALID_ARGUMENT, "MODEL_REFUSED"),
        (scripts.status(404), Code.NOT_FOUND, "UNKNOWN_MODEL"),
        (scripts.status(429), Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
    ],
)
async def test_before_started_an_error_is_the_rpcs_status(
    online: Served, upstream: ScriptedOpenAi, script: scripts.Script, code: Code, reason: str
) -> None:
    upstream.script = script
    assert (await refusal(online, ask()))[:2] == (code, reason)
    # Tried again only where that can help.
    assert len(upstream.requests) == (3 if reason == "MODEL_UNAVAILABLE" else 1)


async def test_after_started_an_error_is_an_event(online: Served, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.cut()
    given = await replies(online, ask())
    assert_grammar(given)
    assert text_of(given) == "Hello, "
    failed = given[-1].failed
    assert failed.reason == errors_pb2.ERROR_REASON_MODEL_UNAVAILABLE
    assert failed.message
    assert failed.usage.estimated
    assert failed.usage.output_tokens == 2


async def test_started_waits_for_the_server(online: Served, upstream: ScriptedOpenAi) -> None:
    accept = asyncio.Event()

    async def script(answer: scripts.Answer) -> None:
        await accept.wait()
        await scripts.hang(("Hello",))(answer)

    upstream.script = script
    call = stub(online).Generate(ask())
    first = asyncio.create_task(call.read())
    done, _ = await asyncio.wait([first], timeout=0.2)
    assert not done
    accept.set()
    reply = await asyncio.wait_for(first, 2)
    assert isinstance(reply, pb.GenerateResponse)
    assert reply.started.model == "openai/lab/tiny"
    call.cancel()


@pytest.mark.parametrize(
    "script", [scripts.hang(), scripts.hang(("Hello",)), scripts.good(["x"] * 1000, pace=0.01)]
)
async def test_cancelling_the_rpc_closes_the_connection_to_the_server(
    online: Served, upstream: ScriptedOpenAi, script: scripts.Script
) -> None:
    upstream.script = script
    call = stub(online).Generate(ask())
    await upstream.received()
    await asyncio.sleep(0.1)
    assert not upstream.last.gone.is_set()
    call.cancel()
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


async def test_an_answer_under_way_is_finished_when_the_process_is_to_end(
    tmp_path: Path, upstream: ScriptedOpenAi, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The runs of other processes wait for it: longer than for any last call.
    monkeypatch.setattr("services.app._LAST_CALLS_SECONDS", 0.05)
    monkeypatch.setenv("PLEXUS_LLM_URL", upstream.url)
    monkeypatch.setenv("PLEXUS_LLM_MODEL", "tiny")
    upstream.script = scripts.good(["x"] * 20, pace=0.1)
    settings = settings_in(tmp_path, drain_seconds=10)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve(settings, ["llm"]))
        key = MasterKey.load(settings.directory / "master.key").derive("mesh")
        clients = Clients({"llm": f"unix:{settings.socket}"}, MeshSigner(key))
        call = LlmServiceStub(clients.channel("llm")).Generate(ask())
        replies = aiter(call)
        first = await anext(replies)
        ending = asyncio.create_task(stack.pop_all().aclose())
        given = [first, *[reply async for reply in replies]]
        await ending
        await clients.close()
    assert text_of(given) == "x" * 20


async def test_the_key_reaches_the_server_and_no_log(
    online: Served, upstream: ScriptedOpenAi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    upstream.script = scripts.status(401, f'{{"error": {{"message": "bad key {KEY}"}}}}')
    _, _, message = await refusal(online, ask())
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"
    assert "key" in message
    assert KEY not in caplog.text + message


def test_the_client_library_is_imported_for_those_who_use_it() -> None:
    program = "import sys, services.llm.module; print('openai' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "False"
