"""The mesh as an operator has it: many processes, replicas, TLS between them, Redis beside them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub
from plexus.errors.v1.errors_pb2 import ErrorReason
from plexus.identity.v1.identity_service_pb2 import GetJwksRequest
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from plexus.interop.v1 import openai_service_pb2 as openai
from plexus.monitor.v1 import monitor_service_pb2 as monitor

from tests.certificates import Authority
from tests.e2e.callers import Grpc, Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh, free_port
from tests.redis_server import redis_server
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

PROCESS = "agents.v1.AgentsService/Process"
SLOWLY = tuple(f"word{n} " for n in range(400))
AT_LAST = 30.0  # Seconds.


def processes(mesh: Mesh) -> dict[str, int]:
    """The processes of the mesh by name, from the kernel's list of the supervisor's children."""
    children = Path(f"/proc/{mesh.pid}/task/{mesh.pid}/children").read_text().split()
    found = {}
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if "--group" in words:
            name = f"{words[words.index('--group') + 1]}-{words[words.index('--replica') + 1]}"
            found[name] = int(pid)
    return found


async def hear(caller: Grpc | Rest, rpc: str, request: Message, number: int) -> list[Message]:
    """The first messages of a stream of events."""
    heard: list[Message] = []
    async for event in caller.stream(rpc, request, run_pb2.RunEvent):
        heard.append(event)
        if len(heard) == number:
            break
    return heard


async def test_tls_between_processes(tmp_path: Path) -> None:
    tls = Authority().write(tmp_path / "tls")
    first = free_port()
    mesh = Mesh(
        tmp_path / "data",
        "mesh",
        address="127.0.0.1:{port}",
        mesh_port=str(first),
        tls_dir=str(tls),
        replicas="agents:2",
    )
    await mesh.start()
    caller = Rest(mesh.url)
    try:
        await sign_up(caller)
        events = await hear(caller, PROCESS, agents.ProcessRequest(input="hi"), 100)
        assert events[-1].HasField("run_completed")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{first}") as plain:
            with pytest.raises(grpc.aio.AioRpcError):
                await IdentityServiceStub(plain).GetJwks(GetJwksRequest(), timeout=2)
    finally:
        await caller.close()
        assert await mesh.stop() == 0


async def test_a_run_is_watched_and_cancelled_through_the_other_replica(tmp_path: Path) -> None:
    async with ScriptedOpenAi() as model:
        model.script = good(SLOWLY, pace=0.05)
        mesh = Mesh(tmp_path, "mesh", replicas="agents:2", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            began = await hear(caller, PROCESS, agents.ProcessRequest(input="hi"), 3)
            run_id = began[0].run_id  # type: ignore[attr-defined]
            bearer = (("authorization", f"Bearer {caller.token}"),)
            for replica in (0, 1):
                where = f"unix:{tmp_path}/run/agents-{replica}.sock"
                async with grpc.aio.insecure_channel(where) as channel:
                    watch = AgentsServiceStub(channel).WatchRun(
                        agents.WatchRunRequest(run_id=run_id), metadata=bearer, timeout=10
                    )
                    seen: list[Any] = [await watch.read() for _ in range(8)]
                    assert [each.sequence for each in seen] == list(range(1, 9))
                    watch.cancel()
            ended = []
            for replica in (0, 1):  # whichever does not carry it hands the wish on
                async with grpc.aio.insecure_channel(
                    f"unix:{tmp_path}/run/agents-{replica}.sock"
                ) as channel:
                    reply = await AgentsServiceStub(channel).CancelRun(
                        agents.CancelRunRequest(run_id=run_id), metadata=bearer, timeout=10
                    )
                    ended.append(reply.run.state)
            assert ended == [run_pb2.RUN_STATE_CANCELLED] * 2
        finally:
            await caller.close()
            assert await mesh.stop() == 0


async def test_a_process_that_hangs_is_replaced_and_its_runs_end(tmp_path: Path) -> None:
    async with ScriptedOpenAi() as model:
        model.script = good(SLOWLY, pace=0.2)
        mesh = Mesh(tmp_path, "mesh", replicas="agents:2", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        caller = Grpc(mesh.url)
        # Straight to the process that will hang: the gateway gives a run to either.
        hanging = Grpc(f"unix:{tmp_path}/run/agents-0.sock")
        try:
            await sign_up(caller)
            hanging.token = caller.token
            before = processes(mesh)
            began = await hear(hanging, PROCESS, agents.ProcessRequest(input="hi"), 3)
            os.kill(before["agents-0"], signal.SIGSTOP)
            # Its lease runs out long before anybody is sure that it hangs.
            assert await ending(caller, began[0].run_id) == "ERROR_REASON_INTERRUPTED"  # type: ignore[attr-defined]
            async with asyncio.timeout(40):
                while processes(mesh).get("agents-0", before["agents-0"]) == before["agents-0"]:
                    await asyncio.sleep(0.2)
        finally:
            await hanging.close()
            await caller.close()
            assert await mesh.stop() == 0


async def test_a_response_outlives_the_process_that_writes_it(tmp_path: Path) -> None:
    def response(name: str, request: Message, where: Grpc) -> AsyncIterator[HttpBody]:
        return where.stream(f"interop.v1.OpenAiService/{name}Response", request, HttpBody)

    async with ScriptedOpenAi() as model:
        model.script = good(SLOWLY, pace=0.05)
        mesh = Mesh(tmp_path, "mesh", replicas="interop:2", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        caller = Grpc(mesh.url)
        hanging, other = (Grpc(f"unix:{tmp_path}/run/interop-{n}.sock") for n in (0, 1))
        try:
            await sign_up(caller)
            hanging.token = other.token = caller.token
            asked = HttpBody(data=b'{"input": "hi", "background": true}')
            (made,) = [each async for each in response("Create", asked, hanging)]
            response_id = json.loads(made.data)["id"]
            watched = openai.GetResponseRequest(response_id=response_id, stream=True)
            told = []
            async with asyncio.timeout(AT_LAST):
                async for each in response("Get", watched, other):
                    told.append(each.data)
                    if len(told) == 10:
                        os.kill(processes(mesh)["interop-0"], signal.SIGSTOP)
            last = json.loads(told[-1].partition(b"data: ")[2])["response"]
            assert (last["status"], last["error"]["code"]) == ("failed", "interrupted")
            assert last["output"][0]["content"][0]["text"].startswith("word0 word1 ")
        finally:
            for each in (hanging, other, caller):
                await each.close()
            assert await mesh.stop() == 0


async def ending(caller: Grpc, run_id: str) -> str:
    """Why a run failed, or that it did not."""
    request = agents.GetRunRequest(run_id=run_id)
    deadline = time.monotonic() + AT_LAST
    while time.monotonic() < deadline:
        reply = await caller.unary("agents.v1.AgentsService/GetRun", request, agents.GetRunResponse)
        if reply.run.state == run_pb2.RUN_STATE_FAILED:
            return ErrorReason.Name(reply.run.failure.reason)
        await asyncio.sleep(0.2)
    return run_pb2.RunState.Name(reply.run.state)


async def test_without_redis_it_goes_on_and_says_so(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        mesh = Mesh(tmp_path / "data", "mesh", redis_url=redis.url)
        await mesh.start()
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            async with asyncio.timeout(20):
                # Ready is before the monitor has found everybody.
                while await statuses(caller) != {monitor.MODULE_STATUS_SERVING}:
                    await asyncio.sleep(0.3)
                redis.kill()
                while monitor.MODULE_STATUS_DEGRADED not in await statuses(caller):
                    await asyncio.sleep(0.3)
            events = await hear(caller, PROCESS, agents.ProcessRequest(input="hi"), 100)
            assert events[-1].HasField("run_completed")
        finally:
            await caller.close()
            assert await mesh.stop() == 0
        logs = "".join(file.read_text() for file in (tmp_path / "data" / "logs").glob("*.log"))
        assert not re.search(r"Traceback", logs)


async def statuses(caller: Grpc) -> set[monitor.ModuleStatus.ValueType]:
    """How the modules are, all of them."""
    found: dict[str, monitor.ModuleStatus.ValueType] = {}
    async for each in caller.stream(
        "monitor.v1.MonitorService/WatchHealth",
        monitor.WatchHealthRequest(),
        monitor.WatchHealthResponse,
    ):
        found[each.module_name] = each.status
        if len(found) == 5:
            break
    return set(found.values())
