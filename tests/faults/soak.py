"""Runs without end, some cancelled and some left; what is held after each lot of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2

from services.runtime.errors import PlexusError
from tests.e2e.callers import Grpc
from tests.faults.suite import Suite

_CALLERS = 16
_CANCELLED = 0.2
_LEFT = 0.1
_QUIET_SECONDS = 0.2
_SETTLE_SECONDS = 10.0
# What there is no more of, however much was done.
FLAT = ("tasks", "threads", "files", "gateway_files")


@dataclass
class Soak:
    """What was done, and what was held after each lot."""

    calls: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    held: list[dict[str, float]] = field(default_factory=list)

    def slope(self, what: str) -> float:
        """How much more is held for each call, over the second half: the median of all slopes.

        As Theil and Sen have it, so that one lot that held more for a moment says nothing.
        """
        late = self.held[len(self.held) // 2 :]
        return statistics.median(
            (b[what] - a[what]) / (b["calls"] - a["calls"]) for a, b in combinations(late, 2)
        )

    def growth(self, what: str) -> float:
        """By how much more is held at the end than where the second half began."""
        late = [each[what] for each in self.held[len(self.held) // 2 :]]
        third = max(1, len(late) // 3)
        return statistics.median(late[-third:]) - statistics.median(late[:third])

    def __str__(self) -> str:
        growth = {
            what: self.growth(what) for what in ("tasks", "threads", "files", "gateway_files")
        }
        return (
            f"{self.calls} calls, {dict(self.ends)}; {self.slope('bytes'):.1f} bytes and "
            f"{self.slope('blocks'):.3f} blocks a call, gateway {self.slope('gateway'):.1f} bytes "
            f"a call; grown by {growth}; held at the end {self.held[-1]}"
        )


class Soaking:
    """Callers of a mesh that is looked into."""

    def __init__(self, suite: Suite, caller: Grpc, gauges: Path, gateway: int) -> None:
        self._suite = suite
        self._caller = caller
        self._gauges = gauges
        self._gateway = gateway
        self.made = Soak()

    async def lot(self, runs: int) -> None:
        """So many runs, and a look when all is quiet again."""
        kinds = self._suite.chance.choices(
            ("whole", "cancelled", "left"), (1 - _CANCELLED - _LEFT, _CANCELLED, _LEFT), k=runs
        )
        left = iter(kinds)

        async def worker() -> None:
            for kind in left:
                self.made.ends[await self._run(kind)] += 1

        await asyncio.gather(*(worker() for _ in range(_CALLERS)))
        await self._look()

    async def _run(self, kind: str) -> str:
        last, run_id = "nothing", ""
        pause = self._suite.chance.uniform(0, 0.1)
        self.made.calls += 1
        events = self._caller.stream(
            "agents.v1.AgentsService/Process",
            agents.ProcessRequest(input="Go on and on."),
            run_pb2.RunEvent,
        )
        cancelling: asyncio.Task[str] | None = None
        try:
            async with contextlib.aclosing(events):  # type: ignore[type-var]
                async for event in events:
                    run_id, last = event.run_id, str(event.WhichOneof("event"))
                    if kind != "whole" and cancelling is None:
                        cancelling = asyncio.create_task(self._cancel(run_id, pause))
                    if kind == "left":
                        break
        except PlexusError as error:
            last = error.reason
        if cancelling is not None:
            ended = await cancelling
            return ended if kind == "left" else last
        return last

    async def _cancel(self, run_id: str, pause: float) -> str:
        await asyncio.sleep(pause)
        self.made.calls += 1
        try:
            reply = await self._caller.unary(
                "agents.v1.AgentsService/CancelRun",
                agents.CancelRunRequest(run_id=run_id),
                agents.CancelRunResponse,
            )
        except PlexusError as error:
            self._suite.note("cancel", run=run_id, at_clock=time.time(), error=repr(error))
            return error.reason
        return run_pb2.RunState.Name(reply.run.state).lower().replace("_state", "")

    async def _look(self) -> None:
        # What the last calls left is let go of by then.
        quiet = time.monotonic() + _QUIET_SECONDS
        while (seen := await asyncio.to_thread(self._newest))["at"] < quiet:
            assert time.monotonic() < quiet + _SETTLE_SECONDS, "nobody looks any more"
            await asyncio.sleep(0.05)
        pages = Path(f"/proc/{self._gateway}/statm").read_text().split()[1]
        seen["gateway"] = int(pages) * 4096.0
        seen["gateway_files"] = float(len(list(Path(f"/proc/{self._gateway}/fd").iterdir())))
        seen["calls"] = float(self.made.calls)
        self.made.held.append(seen)
        self._suite.note("held", **seen)

    def _newest(self) -> dict[str, float]:
        lines: Sequence[str] = self._gauges.read_text().splitlines()
        # The last line may be half written.
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                return found
        return {"at": 0.0}
