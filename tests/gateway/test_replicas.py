"""Two replicas of every module, killed in turn under load: nobody who may be repeated notices."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.config import Endpoint, Limits
from gateway.process import GatewayProcess
from tests.gateway.conftest import CONTRACTS, configure
from tests.gateway.tokens import Keys, write_jwks

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROOT = CONTRACTS.parents[1]
CALLERS, KILLS = 8, 4
# Between a death and the return, and between a return and the next death.
DOWN_SECONDS, UP_SECONDS = 0.5, 1.0
_PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from tests.gateway.backend import backend_at

    async def main():
        Path(sys.argv[1]).unlink(missing_ok=True)
        await backend_at(Path(sys.argv[1])).start()
        print("serves", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
""")


async def replica(socket: Path) -> asyncio.subprocess.Process:
    """A process that serves on a socket."""
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, str(socket)), cwd=ROOT, stdout=subprocess.PIPE
    )
    assert made.stdout is not None
    await asyncio.wait_for(made.stdout.readline(), 20)
    return made


async def kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()


@contextlib.asynccontextmanager
async def replicated(
    scratch: Path, contracts: bytes
) -> AsyncIterator[tuple[GatewayProcess, Keys, dict[Path, asyncio.subprocess.Process]]]:
    keys = Keys("one")
    sockets = [scratch / f"{number}.sock" for number in range(2)]
    base = configure(scratch, contracts)
    config = configure(
        scratch,
        contracts,
        upstreams={name: [Endpoint(path=path) for path in sockets] for name in base.upstreams},
        limits=Limits(read=0, write=0, generate=0, login=0),
    )
    write_jwks(config.jwks_file, keys)
    processes = {path: await replica(path) for path in sockets}
    gateway = GatewayProcess(config, contracts)
    await gateway.start()
    try:
        await gateway.wait_ready(15)
        yield gateway, keys, processes
    finally:
        await gateway.stop(0)
        for process in processes.values():
            await kill(process)


async def test_replicas_killed_in_turn_fail_no_repeatable_call(
    scratch: Path, contracts: bytes
) -> None:
    async with replicated(scratch, contracts) as (gateway, keys, processes):
        base = f"http://127.0.0.1:{gateway.port}"
        headers = {"authorization": f"Bearer {keys.token(lifetime=600)}"}
        told: Counter[str] = Counter()
        over = asyncio.Event()

        async def call(http: aiohttp.ClientSession) -> None:
            while not over.is_set():
                async with http.get(f"{base}/v1/agents/agt_ok", headers=headers) as response:
                    told[f"read {response.status}"] += 1
                # With a body, which is asked about before it is sent.
                cancel = f"{base}/v1/runs/run_1:cancel"
                async with http.post(cancel, json={}, headers=headers) as response:
                    told[f"write {response.status}"] += 1

        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(call(http))
            for number in range(KILLS):
                path = list(processes)[number % 2]
                before = told.total()
                await kill(processes[path])
                await asyncio.sleep(DOWN_SECONDS)
                processes[path] = await replica(path)
                await asyncio.sleep(UP_SECONDS)
                assert told.total() > before
            over.set()
    assert set(told) == {"read 200", "write 200"}, told
    assert min(told.values()) > 200
