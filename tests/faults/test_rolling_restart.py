"""A rolling restart of every module, two replicas of each behind Envoy, under load.

Each process is told to end, as an orchestrator does it, and the next one only when that one is back
and well. No unary call that may be repeated fails, and every stream ends whole or is taken up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.history.v1 import history_service_pb2 as history
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.llm.v1 import llm_service_pb2 as llm

from tests.e2e.callers import Caller
from tests.faults.load import Load, load
from tests.faults.processes import Installation, installed
from tests.faults.stored import Stored, asked_twice, judge
from tests.faults.suite import FULL, Suite, running, sized, until_shown
from tests.faults.told import NOT_NOW, Findings, spread
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

CALLS = sized(300, 18_000)
CALLERS = sized(4, 12)
STREAMS = 6
# In the full form a stream is longer than the last calls of a process that ends may take.
WORDS = tuple(f"word{number} " for number in range(sized(20, 80)))
_PACE = 0.05
# After a replica is well the gateway looks once more before the next one goes.
_NOTICE_SECONDS = 1.0
_TWO_OF_EACH = "identity-monitor:2,llm:2,history:2,agents:2"
_REPLICAS = sized("history:2,agents:2", _TWO_OF_EACH)
_WORKING = "agents"
_Kind = tuple[str, Callable[[], object], type]
_KINDS: tuple[_Kind, ...] = (
    (
        "identity.v1.IdentityService/GetProfile",
        identity.GetProfileRequest,
        identity.GetProfileResponse,
    ),
    ("llm.v1.LlmService/ListModels", llm.ListModelsRequest, llm.ListModelsResponse),
    (
        "history.v1.HistoryService/ListSessions",
        history.ListSessionsRequest,
        history.ListSessionsResponse,
    ),
    ("agents.v1.AgentsService/ListAgents", agents.ListAgentsRequest, agents.ListAgentsResponse),
)


@dataclass
class Calls:
    """Unary calls that may be repeated, over REST and gRPC."""

    work: Load
    found: Findings
    kinds: Sequence[_Kind] = _KINDS
    made: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    seconds: list[float] = field(default_factory=list)
    stopping: bool = False

    async def caller(self, number: int, wait: float) -> None:
        """One caller, who asks each module in turn by turns of protocol."""
        turn = number
        while not self.stopping:
            over: Caller = self.work.rest if turn % 2 else self.work.grpc
            await self.one(over, *self.kinds[turn // 2 % len(self.kinds)], over_rest=bool(turn % 2))
            turn += 1
            await asyncio.sleep(wait)

    async def one(
        self, over: Caller, rpc: str, request: Callable[[], object], reply: type, *, over_rest: bool
    ) -> None:
        """One call, which must not fail."""
        began = time.monotonic()
        self.made["REST" if over_rest else "gRPC"] += 1
        call: Awaitable[object] = over.unary(rpc, request(), reply)  # type: ignore[arg-type]
        try:
            await call
        except NOT_NOW as error:
            self.failed += 1
            self.found.refused(error, rpc)
            self.found.add("failed call", f"{rpc} over {'REST' if over_rest else 'gRPC'}: {error}")
        self.seconds.append(time.monotonic() - began)


async def restart(mesh: Installation, name: str, suite: Suite) -> float:
    """Tell one process to end; returns when another has its place and is well."""
    began = time.monotonic()
    pid = mesh.modules()[name]
    os.kill(pid, signal.SIGTERM)
    await mesh.another(name, pid)
    await mesh.serving(name)
    took = time.monotonic() - began
    suite.note("restarted", process=name, seconds=took)
    await asyncio.sleep(_NOTICE_SECONDS)
    return took


def chosen(mesh: Installation, suite: Suite) -> list[str]:
    """Every process; in the short form one of two that carry runs, and one of two others."""
    names = sorted(mesh.modules())
    if FULL:
        return names
    both = [[name for name in names if group in name] for group in (_WORKING, "history")]
    return [suite.chance.choice(replicas) for replicas in both]


async def streaming(work: Load) -> None:
    """Wait until every client has seen something of a run: a restart shall meet some."""
    async with asyncio.timeout(30):
        while len(work.told) < STREAMS or not all(told.seen for told in work.told):
            await asyncio.sleep(0.02)


async def roll(
    mesh: Installation, calls: Calls, suite: Suite, names: list[str], enough: int
) -> list[float]:
    """Restart one after the other until all are new and enough was called."""
    took: list[float] = []
    while not took or sum(calls.made.values()) < enough:
        for name in names:
            took.append(await restart(mesh, name, suite))
    return took


async def trial(suite: Suite, folder: Path, *defects: str) -> tuple[Findings, Calls]:
    """One installation that is restarted process by process; what was found wrong."""
    found = Findings(suite)
    async with ScriptedOpenAi() as model:
        model.script = good(WORDS, pace=_PACE)
        settings = {"replicas": _REPLICAS, "llm_url": model.url, "llm_model": "scripted"}
        async with installed(folder, *defects, **settings) as mesh:
            async with load(mesh, found, clients=STREAMS, limit=1_000_000) as work:
                # A planted defect shows where runs are carried, in the moment until the gateway
                # has noticed: all that is called then goes there.
                calls = Calls(work, found, _KINDS[-1:] if defects else _KINDS)
                wait = 0.0 if defects else 0.02
                callers = [
                    asyncio.create_task(calls.caller(number, wait)) for number in range(CALLERS)
                ]
                await streaming(work)
                names = chosen(mesh, suite)
                some = [name for name in names if not defects or _WORKING in name]
                took = await roll(mesh, calls, suite, some, 0 if defects else CALLS)
                calls.stopping = True
                await asyncio.gather(*callers)
                await work.finish()
            stored = await Stored.read(mesh.database_url)
        endings = judge(work.told, stored, "".join(WORDS), found)
        asked_twice([each.body for each in model.requests], found)
    for how, count in endings.items():
        if how != "run_completed":
            found.add("cut", f"{count} runs ended in {how}")
    suite.say(
        f"{len(took)} restarts, {spread(took)}; {calls.failed} of {sum(calls.made.values())} calls "
        f"failed, {dict(calls.made)}, {spread(calls.seconds)}; {len(work.told)} streams, "
        f"{sum(told.breaks for told in work.told)} breaks; {dict(endings)}; "
        f"refusals {dict(found.refusals)}"
    )
    return found, calls


@pytest.mark.timeout(1200 if FULL else 180)
async def test_no_call_fails_and_every_stream_ends_whole(tmp_path: Path) -> None:
    with running("rolling-restart") as suite:
        found, calls = await trial(suite, tmp_path / "data")
        found.require_none()
        assert sum(calls.made.values()) >= CALLS
        assert min(calls.made["REST"], calls.made["gRPC"]) > CALLS // 3


# Defects, and what shows each.
_SHOWN = {"ends_at_once": {"cut"}, "edge_does_not_repeat": {"failed call"}}


async def _unseen(suite: Suite, folder: Path, attempt: int) -> list[str]:
    found, _ = await trial(suite, folder / str(attempt), *_SHOWN)
    return [name for name, kinds in _SHOWN.items() if not found.kinds.keys() & kinds]


@pytest.mark.timeout(300)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("rolling-restart-planted") as suite:
        await until_shown(partial(_unseen, suite, tmp_path))
