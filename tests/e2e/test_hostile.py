"""What careless or hostile callers and surroundings do must not reach others."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.llm.v1 import llm_service_pb2 as llm

from services.runtime.errors import InvalidRequest
from services.runtime.status import remote_errors
from tests.e2e.callers import Grpc, Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.e2e.test_bad_input import refused
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

STALLED = 60


async def test_readers_who_do_not_read_hold_up_nobody_else(tmp_path: Path) -> None:
    async with ScriptedOpenAi() as model:
        model.script = good(["<" * 10_000] * 60)
        mesh = Mesh(tmp_path / "data", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        rest, other = Rest(mesh.url), Rest(mesh.url)
        await sign_up(rest)
        await sign_up(other)
        run_id = ""
        async with rest.request("POST", "/v1/agents/process", json={"input": "x"}) as reply:
            run_id = (await reply.text()).split('"run_id":"')[1].split('"')[0]
        stalled = []
        for _ in range(STALLED):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", mesh.port))
            connection.sendall(
                f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {rest.token}\r\n\r\n".encode()
            )
            stalled.append(connection)
        # Each has taken what its window lets it.
        await asyncio.sleep(1)
        for _ in range(10):
            async with asyncio.timeout(2):
                await other.unary(
                    "llm.v1.LlmService/ListModels", llm.ListModelsRequest(), llm.ListModelsResponse
                )
        for connection in stalled:
            connection.close()
        await rest.close()
        await other.close()
        await mesh.kill()


@pytest.mark.parametrize("path", ["/v1/runs/%ff", "/v1/sessions?page_token=%ff"])
async def test_bytes_that_are_no_text_are_the_callers_fault(rest: Rest, path: str) -> None:
    await sign_up(rest)
    async with rest.request("GET", path) as reply:
        await refused(reply, 400, "INVALID_REQUEST")


async def test_bytes_that_are_no_message_are_the_callers_fault(mesh: Mesh) -> None:
    async with grpc.aio.insecure_channel(mesh.url.removeprefix("http://")) as channel:
        call: Any = channel.unary_unary("/plexus.identity.v1.IdentityService/AuthenticateUser")
        with pytest.raises(InvalidRequest), remote_errors():
            await call(b"\xff\xff\xff", timeout=5)


@pytest.mark.parametrize("name", ["a b", "ä ü 空", "x%20y", "a?b", "a#b"])
async def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    mesh = Mesh(tmp_path / name)
    await mesh.start()
    assert await mesh.stop() == 0
    assert (mesh.data_dir / "plexus.db").exists()
    assert [each.name for each in tmp_path.iterdir()] == [name]


async def test_of_two_at_one_port_one_is_refused(tmp_path: Path) -> None:
    first, second = Mesh(tmp_path / "1"), Mesh(tmp_path / "2")
    second.use_port(first.port)
    started = await asyncio.gather(first.start(), second.start(), return_exceptions=True)
    assert [isinstance(each, AssertionError) for each in started].count(True) == 1, started
    assert str(first.port) in str(next(e for e in started if isinstance(e, AssertionError)))
    for mesh in (first, second):
        await mesh.kill()


async def test_a_lost_master_key_is_named(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    assert await tmp_mesh.stop() == 0
    (tmp_mesh.data_dir / "master.key").unlink()
    with pytest.raises(AssertionError, match=r"master\.key is missing.*backup"):
        await tmp_mesh.start()


async def test_a_database_that_was_emptied_is_not_taken_for_a_new_one(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    assert await tmp_mesh.stop() == 0
    (tmp_mesh.data_dir / "plexus.db").write_bytes(b"")
    with pytest.raises(AssertionError, match="empty though it held data"):
        await tmp_mesh.start()
    (tmp_mesh.data_dir / "plexus.db").unlink()
    await tmp_mesh.start()
    assert await tmp_mesh.stop() == 0


async def test_a_long_conversation_goes_on(tmp_path: Path) -> None:
    """Past what fits the window by bytes, so that tokens are counted."""
    async with ScriptedOpenAi() as model:
        mesh = Mesh(
            tmp_path / "data", llm_url=model.url, llm_model="scripted", llm_context_window="2000"
        )
        await mesh.start()
        caller = Grpc(mesh.url)
        await sign_up(caller)
        session = ""
        for n in range(4):
            request = agents.ProcessRequest(input=f"{n} " + "word " * 600, session_id=session)
            events = [
                e
                async for e in caller.stream(
                    "agents.v1.AgentsService/Process", request, run_pb2.RunEvent
                )
            ]
            session = events[0].run_started.session_id
            assert events[-1].HasField("run_completed"), events[-1]
        sent = model.last.body["messages"]
        assert sent[-1]["content"].startswith("3 ")
        assert len(sent) < 8
        await caller.close()
        await mesh.kill()
