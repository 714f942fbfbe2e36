"""`plexus up` as an operator meets it: starts, stops, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2

from services.runtime.errors import PlexusError, Unauthenticated, Unavailable
from tests.e2e.callers import Grpc, Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.e2e.test_bad_input import refused
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

PROCESS = "agents.v1.AgentsService/Process"


async def said(mesh: Mesh) -> tuple[int | None, str]:
    process = await mesh.spawn()
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, output.decode()


async def test_it_says_what_to_do_first_and_stops_when_told(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    status, output = await said(tmp_mesh)
    assert (status, output.splitlines()[0]) == (
        0,
        f"Plexus already runs at {tmp_mesh.url} (process {tmp_mesh.pid}).",
    )
    assert await tmp_mesh.stop() == 0
    printed = await tmp_mesh.output()
    assert f"Plexus is up at {tmp_mesh.url}" in printed
    assert f"curl -s {tmp_mesh.url}/v1/users/register" in printed
    assert printed.endswith("Stopped. Everything that was acknowledged is kept.\n")
    for private in (tmp_mesh.data_dir, tmp_mesh.data_dir / "master.key"):
        assert private.stat().st_mode & 0o077 == 0


async def test_a_taken_port_is_one_sentence(tmp_mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", tmp_mesh.port)):
        status, output = await said(tmp_mesh)
    assert status == 1
    assert len(output.splitlines()) == 1
    assert str(tmp_mesh.port) in output
    assert "PORT=" in output


async def test_a_damaged_database_is_one_sentence(tmp_mesh: Mesh) -> None:
    tmp_mesh.data_dir.mkdir()
    (tmp_mesh.data_dir / "plexus.db").write_bytes(b"no database" * 1000)
    status, output = await said(tmp_mesh)
    assert status == 1
    assert len(output.splitlines()) == 1
    assert "backup" in output


@pytest.mark.parametrize(
    ("name", "value"), [("port", "http"), ("log_level", "loud"), ("llm_url", "ftp://x")]
)
async def test_a_wrong_setting_is_named(tmp_path: Path, name: str, value: str) -> None:
    mesh = Mesh(tmp_path / "data", **{name: value})
    status, output = await said(mesh)
    assert status == 1
    assert f"PLEXUS_{name.upper()}" in output
    assert "Traceback" not in output


async def test_a_long_path_still_has_room_for_sockets(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path / ("long" * 40) / "data")
    await mesh.start()
    assert await mesh.stop() == 0


async def test_the_gateway_is_started_again_when_it_dies(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    os.kill(gateway_of(tmp_mesh.pid), signal.SIGKILL)
    caller = Grpc(tmp_mesh.url)
    async with asyncio.timeout(10):
        while True:
            try:
                await sign_up(caller)
                break
            except PlexusError:
                await asyncio.sleep(0.05)
    await caller.close()
    assert await tmp_mesh.stop() == 0


async def test_envoy_does_not_outlive_the_mesh(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    envoy = gateway_of(tmp_mesh.pid)
    await tmp_mesh.kill()
    async with asyncio.timeout(5):
        while Path(f"/proc/{envoy}").exists():
            await asyncio.sleep(0.02)


def gateway_of(pid: int) -> int:
    """The Envoy that a process started, beside those that read documents and keep the index."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    (found,) = [
        int(each)
        for each in text.split()
        if Path(f"/proc/{each}/exe").resolve().name.startswith("envoy")
    ]
    return found


async def test_a_module_that_hangs_is_a_503_or_504_within_its_deadline(tmp_mesh: Mesh) -> None:
    await tmp_mesh.start()
    rest = Rest(tmp_mesh.url)
    await sign_up(rest)
    os.kill(tmp_mesh.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(6), rest.request("GET", "/v1/users/profile") as reply:
            assert reply.status in {503, 504}
            await refused(
                reply,
                reply.status,
                "UNAVAILABLE" if reply.status == 503 else "DEADLINE_EXCEEDED",
            )
    finally:
        os.kill(tmp_mesh.pid, signal.SIGCONT)
    await rest.close()
    assert await tmp_mesh.stop() == 0


async def test_a_stop_lets_an_answer_finish(tmp_path: Path) -> None:
    words = [f"w{n} " for n in range(60)]
    async with ScriptedOpenAi() as model:
        model.script = good(words, pace=0.02)
        mesh = Mesh(tmp_path / "data", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        caller = Grpc(mesh.url)
        await sign_up(caller)
        seen: list[run_pb2.RunEvent] = []
        stopping: asyncio.Task[int] | None = None
        async for event in caller.stream(
            PROCESS, agents.ProcessRequest(input="Go."), run_pb2.RunEvent
        ):
            seen.append(event)
            if stopping is None and event.HasField("text_delta"):
                stopping = asyncio.create_task(mesh.stop())
        assert stopping is not None
        assert await stopping == 0
        await caller.close()
    assert seen[-1].HasField("run_completed")
    assert "".join(event.text_delta.text for event in seen) == "".join(words)


async def test_a_cancel_reaches_the_models_server(tmp_path: Path) -> None:
    async with ScriptedOpenAi() as model:
        model.script = good(["word "] * 1000, pace=0.02)
        mesh = Mesh(tmp_path / "data", llm_url=model.url, llm_model="scripted", llm_key="sk-x")
        await mesh.start()
        caller = Grpc(mesh.url)
        await sign_up(caller)
        run_id = ""
        async for event in caller.stream(
            PROCESS, agents.ProcessRequest(input="Go."), run_pb2.RunEvent
        ):
            run_id = event.run_id
            if event.HasField("text_delta"):
                break
        # Leaving the stream ends nothing: the run goes on until it is cancelled.
        await asyncio.sleep(0.2)
        assert not model.last.gone.is_set()
        reply = await caller.unary(
            "agents.v1.AgentsService/CancelRun",
            agents.CancelRunRequest(run_id=run_id),
            agents.CancelRunResponse,
        )
        assert reply.run.state == run_pb2.RUN_STATE_CANCELLED
        assert reply.run.output.startswith("word word ")
        async with asyncio.timeout(2):
            await model.last.gone.wait()
        await caller.close()
        assert model.last.headers["authorization"] == "Bearer sk-x"
        assert await mesh.stop() == 0
        for log in (mesh.data_dir / "logs").iterdir():
            assert "sk-x" not in log.read_text()


async def test_a_log_line_tells_request_tenant_and_trace(tmp_path: Path) -> None:
    tmp_mesh = Mesh(tmp_path / "data", log_level="debug")
    await tmp_mesh.start()
    rest = Rest(tmp_mesh.url)
    registered = await sign_up(rest)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    async with rest.request(
        "POST", "/v1/agents/process", json={"input": "Hello"}, headers=headers
    ) as reply:
        request_id = reply.headers["x-request-id"]
        await reply.read()
    await rest.close()
    assert await tmp_mesh.stop() == 0
    lines = [
        json.loads(line)
        for line in (tmp_mesh.data_dir / "logs" / "plexus.log").read_text().splitlines()
    ]
    mine = [line for line in lines if line.get("request_id") == request_id]
    assert {line.get("method", "").split("/")[-1] for line in mine} >= {
        "Process",
        "AppendMessage",
        "GetWindow",
        "Generate",
    }
    assert {line["trace_id"] for line in mine} == {trace}
    assert {line["tenant"] for line in mine if "tenant" in line} == {registered.user.tenant_id}
    access = (tmp_mesh.data_dir / "logs" / "access.log").read_text()
    assert request_id in access
    assert registered.user.tenant_id in access
    for text in (access, str(lines)):
        assert rest.token not in text
        assert "a long password" not in text
    messages = [line["message"] for line in lines if line["event"] == "request"]
    assert {"input": "Hello"} in messages
    assert {"password": "[redacted]", "email": registered.user.email} in messages


async def test_a_token_of_another_installation_is_refused(tmp_path: Path, mesh: Mesh) -> None:
    other = Mesh(tmp_path / "data")
    await other.start()
    there, here = Rest(other.url), Rest(mesh.url)
    await sign_up(there)
    here.token = there.token
    async with here.request("GET", "/v1/users/profile") as reply:
        await refused(reply, 401, "UNAUTHENTICATED")
    grpc = Grpc(mesh.url)
    grpc.token = there.token
    with pytest.raises((Unauthenticated, Unavailable)) as caught:
        async for _ in grpc.stream(PROCESS, agents.ProcessRequest(input="x"), run_pb2.RunEvent):
            pass
    assert isinstance(caught.value, Unauthenticated)
    for each in (there, here, grpc):
        await each.close()
    assert await other.stop() == 0
