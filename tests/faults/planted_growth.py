"""A look from inside at what a process holds, and defects by which it holds ever more."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.planting import Plant, module, replace

_GAUGE_SECONDS = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")


def gauges_are_written() -> None:
    """No defect: what the process holds, after a collection of garbage, five times a second."""
    from services.runtime.server import Server

    file = Path(os.environ["PLEXUS_GAUGES"])
    kept: list[asyncio.Task[None]] = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def start(self: Any, *arguments: Any) -> Any:
            started = await original(self, *arguments)
            kept.append(asyncio.create_task(_write(file), name="gauges"))
            return started

        return start

    replace(Server, "start", make)


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


async def _write(file: Path) -> None:
    trim = ctypes.CDLL(None).malloc_trim
    while True:
        gc.collect()
        trim(0)
        held = {
            "at": time.monotonic(),
            "tasks": len(asyncio.all_tasks()),
            "threads": _count("/proc/self/task"),
            "files": _count("/proc/self/fd"),
            "blocks": sys.getallocatedblocks(),
            "bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
        }
        with file.open("a") as out:
            out.write(json.dumps(held) + "\n")
        await asyncio.sleep(_GAUGE_SECONDS)


def runs_are_remembered() -> None:
    """A run that has ended stays in memory."""
    from services.agents.runlog import RunLog

    kept: list[Any] = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def close(self: Any, live: Any) -> None:
            kept.append(live)
            original(self, live)

        return close

    replace(RunLog, "close", make)


def cancelled_runs_leave_a_task() -> None:
    """Whoever cancels a run leaves somebody behind who waits for it for ever."""
    from services.agents.service import AgentsService

    kept: list[asyncio.Task[Any]] = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def cancel(self: Any, *arguments: Any) -> Any:
            kept.append(asyncio.create_task(asyncio.Event().wait()))
            return await original(self, *arguments)

        return cancel

    replace(AgentsService, "cancel", make)


def runs_leave_a_file() -> None:
    """A run opens something and does not close it."""
    from services.agents.runlog import RunLog

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def close(self: Any, live: Any) -> None:
            os.open("/dev/null", os.O_RDONLY)
            original(self, live)

        return close

    replace(RunLog, "close", make)


def full_is_a_surprise() -> None:
    """Nobody thought of a disk without room."""
    sqlite, errors = module("runtime.db.sqlite"), module("runtime.errors")

    class NotFull(errors.Unavailable):  # type: ignore[misc, name-defined]
        """It says something else."""

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__("The database cannot serve now.")

    replace(sqlite, "ResourceExhausted", lambda _: NotFull)


def reads_write_too() -> None:
    """To look something up writes down that it was looked up."""
    from services.identity.servicer import IdentityServicer

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def get_profile(self: Any, *arguments: Any) -> Any:
            found = await original(self, *arguments)
            file = Path(os.environ["PLEXUS_DATA_DIR"]) / "seen"
            with file.open("a") as out:
                out.write("x" * 100_000)
            return found

        return get_profile

    replace(IdentityServicer, "GetProfile", make)


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        gauges_are_written,
        runs_are_remembered,
        cancelled_runs_leave_a_task,
        runs_leave_a_file,
        full_is_a_surprise,
        reads_write_too,
    )
}
