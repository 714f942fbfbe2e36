"""Envoy as a child: started, refused, drained, and never alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub

from gateway.config import Bounds
from gateway.errors import GatewayError
from gateway.process import GatewayProcess, check_port, envoy_path
from tests.gateway import grpcweb
from tests.gateway.backend import Backend, backend_at
from tests.gateway.conftest import CONTRACTS, configure, until
from tests.gateway.tokens import Keys, write_jwks

ROOT = CONTRACTS.parents[1]
# Every test here runs where the grpc.aio of the others does: it belongs to one loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@contextlib.asynccontextmanager
async def running(
    scratch: Path, contracts: bytes, *, behind: bool = True
) -> AsyncIterator[tuple[GatewayProcess, Backend, Keys]]:
    keys, backend = Keys("one"), backend_at(scratch / "mesh.sock")
    config = configure(scratch, contracts, bounds=Bounds(log_bytes=1000))
    write_jwks(config.jwks_file, keys)
    process = GatewayProcess(config, contracts)
    try:
        if behind:
            await backend.start()
        await process.start()
        yield process, backend, keys
    finally:
        await process.stop(0)
        await backend.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not awaited does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


async def test_start_serve_stop(scratch: Path, contracts: bytes) -> None:
    async with running(scratch, contracts) as (process, _, _keys):
        await process.wait_ready(15)
        assert process.pid is not None
        with pytest.raises(GatewayError, match="runs already"):
            await process.start()
        assert process.config_file.stat().st_mode & 0o777 == 0o600
        first = process.pid
        await process.stop(1)
        assert process.pid is None
        assert await process.wait() in (0, -signal.SIGTERM)
        assert not alive(first)
        # And again, as after an unexpected end.
        await process.start()
        await process.wait_ready(15)


async def test_a_stop_lets_calls_end(scratch: Path, contracts: bytes) -> None:
    async with (
        running(scratch, contracts) as (process, backend, keys),
        aiohttp.ClientSession() as http,
    ):
        await process.wait_ready(15)
        url = f"http://127.0.0.1:{process.port}/v1/agents/process"
        headers = {"authorization": f"Bearer {keys.token()}"}
        response = await http.post(url, json={"input": "steps"}, headers=headers)
        await response.content.readuntil(b"\n\n")
        stopping = asyncio.create_task(process.stop(30))
        with pytest.raises(OSError):
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", process.port)
                writer.close()
                await asyncio.sleep(0.01)
        assert not stopping.done()
        backend.step.set()
        assert b"run_completed" in await response.content.read()
        await asyncio.wait_for(stopping, 10)


async def test_nothing_behind_it(scratch: Path, contracts: bytes) -> None:
    async with running(scratch, contracts, behind=False) as (process, backend, keys):
        with pytest.raises(GatewayError, match=r"not ready within 1 s: no healthy module"):
            await process.wait_ready(1)
        base, headers = f"http://127.0.0.1:{process.port}", {}
        headers["authorization"] = f"Bearer {keys.token()}"
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{base}/healthz") as response:
                assert (response.status, await response.text()) == (503, "unavailable\n")
            began = time.monotonic()
            async with http.get(f"{base}/v1/agents", headers=headers) as response:
                body = await response.json()
                assert (response.status, body["code"]) == (503, 14)
                assert body["details"][0]["reason"] == "UNAVAILABLE"
                assert body["message"] == "The service cannot serve now; try again."
            path = f"{base}/plexus.agents.v1.AgentsService/GetAgent"
            web = await grpcweb.call(http, path, pb.GetAgentRequest(), headers=headers)
            assert web.status == 14
            async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await AgentsServiceStub(channel).GetAgent(
                        pb.GetAgentRequest(), metadata=tuple(headers.items())
                    )
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 1
            await backend.start()
            await process.wait_ready(15)
            async with http.get(f"{base}/healthz") as response:
                assert (response.status, await response.text()) == (200, "ok\n")
            # A module that vanishes under way, before its health is known.
            await backend.stop()
            began = time.monotonic()
            async with http.get(f"{base}/v1/agents", headers=headers) as response:
                assert response.status == 503
                assert (await response.json())["details"][0]["reason"] == "UNAVAILABLE"
            assert time.monotonic() - began < 2


async def test_logs_stay_within_their_bound(scratch: Path, contracts: bytes) -> None:
    async with running(scratch, contracts) as (process, _, _keys), aiohttp.ClientSession() as http:
        await process.wait_ready(15)
        assert await process.rotate_logs() is False
        log = scratch / "access.log"

        async def ask() -> None:
            async with http.get(f"http://127.0.0.1:{process.port}/nope") as response:
                assert response.status == 404

        for _ in range(5):
            await ask()
        # All of them: one that is written later is in the next file.
        await until(lambda: log.read_text().count("/nope") == 5)
        assert await process.rotate_logs() is True
        assert (scratch / "access.log.1").stat().st_size > 1000
        await ask()
        await until(lambda: log.exists() and log.read_text().count("/nope") == 1)


async def test_a_taken_port_is_one_plain_sentence(scratch: Path, contracts: bytes) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = configure(scratch, contracts, port=port)
        write_jwks(config.jwks_file, Keys("one"))
        process = GatewayProcess(config, contracts)
        with pytest.raises(GatewayError) as caught:
            await process.start()
        assert str(caught.value) == f"port {port} is taken by another program; set PORT=…"
    with pytest.raises(GatewayError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", 8080)


async def test_without_keys_it_does_not_start(scratch: Path, contracts: bytes) -> None:
    config = configure(scratch, contracts)
    process = GatewayProcess(config, contracts)
    with pytest.raises(GatewayError, match="identity writes it first"):
        await process.start()
    with pytest.raises(GatewayError, match="was not started"):
        await process.wait()
    config.jwks_file.write_text('{"keys": []}')
    with pytest.raises(GatewayError, match="has no key"):
        await process.start()
    config.jwks_file.write_text('{"keys": [{"kty": "nonsense"}]}')
    with pytest.raises(GatewayError, match="has invalid local jwks"):
        await process.validate()


async def test_an_envoy_that_ends_says_why(scratch: Path, contracts: bytes) -> None:
    config = configure(scratch, contracts, access_log=scratch / "no" / "such" / "directory")
    write_jwks(config.jwks_file, Keys("one"))
    process = GatewayProcess(config, contracts)
    await process.start()
    with pytest.raises(GatewayError, match=r"ended while it started: .*directory"):
        await process.wait_ready(15)
    assert await process.wait() != 0


async def test_it_dies_with_its_parent(scratch: Path, contracts: bytes) -> None:
    write_jwks(scratch / "jwks.json", Keys("one"))
    program = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from gateway.process import GatewayProcess
        from tests.gateway.conftest import CONTRACTS, configure

        async def main():
            contracts = CONTRACTS.read_bytes()
            process = GatewayProcess(configure(Path(sys.argv[1]), contracts), contracts)
            await process.start()
            while not (Path(sys.argv[1]) / "envoy-admin.sock").exists():
                await asyncio.sleep(0.01)
            print(process.pid, flush=True)
            await process.wait()

        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(scratch), cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    assert alive(child)
    assert await asyncio.to_thread(os.readlink, f"/proc/{child}/exe") == str(envoy_path())
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await until(lambda: not alive(child))


async def test_the_command(scratch: Path) -> None:
    async def run(command: str) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", command),
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return process.returncode, out

    assert await run("validate") == (0, b"the gateway's configuration is valid\n")
    status, out = await run("render")
    assert status == 0
    assert out.startswith(b"{")
