"""Processes under measurement, and jobs of load on them."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.bench.load import Job, Outcome

ROOT = Path(__file__).resolve().parents[2]
_READY_SECONDS = 60.0


@asynccontextmanager
async def started(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    """A Python module in a process of its own, from when it says `ready`; gives its id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env=clean(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while (line := await process.stdout.readline()) != b"ready\n":
                if not line:
                    raise RuntimeError(f"{module} did not start")
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment without settings of Plexus', and some more."""
    inherited = {key: value for key, value in os.environ.items() if "PLEXUS" not in key}
    limits = {f"PLEXUS_RATE_{name}": "0" for name in ("READ", "WRITE", "GENERATE", "LOGIN")}
    cheap = {"PLEXUS_ARGON2_MEMORY_KIB": "1024", "PLEXUS_ARGON2_PASSES": "1"}
    return {**inherited, **limits, **cheap, **environment}


async def load(job: Job) -> Outcome:
    """Do a job of load in a process of its own.

    Raises:
        RuntimeError: It did not work, or a hundredth of the calls failed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(pickle.dumps(job))
    if process.returncode != 0:
        raise RuntimeError(f"the load generator failed: {process.returncode}")
    outcome: Outcome = pickle.loads(output)
    if not outcome.calls or outcome.failed > outcome.calls / 100:
        raise RuntimeError(f"{outcome.failed} calls failed, {outcome.calls} did not: {job.address}")
    return outcome


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
