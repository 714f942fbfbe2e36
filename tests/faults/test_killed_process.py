"""Kill -9 of one process of the mesh, again and again, while clients do runs.

Each client asks with an idempotency key, comes back after every break with the last sequence that
it saw, and keeps all that it was told. At the end that is compared with what PostgreSQL holds.
Now and then a process that carries runs is not killed but stalled for longer than its lease, and
goes on to write to runs that others have taken over.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.faults.load import Load, load
from tests.faults.processes import Installation, installed, kill, waited
from tests.faults.stored import Stored, asked_twice, judge
from tests.faults.suite import FULL, Suite, at_most, each, running, sized, until_shown
from tests.faults.told import Findings, percentile, spread
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

KILLS = sized(3, 50)
RUNS = sized(100_000, 10_000)
# With a planted defect.
_FEW_RUNS = 200
CLIENTS = sized(8, 32)
# The full form ends at whatever comes first.
SECONDS = sized(20.0, at_most(240.0))
WORDS = tuple(f"word{number} " for number in range(8))
WHOLE = "".join(WORDS)
RECOVERY_SECONDS = 3.0
_STALL_EVERY = 8
_SETTLING_SECONDS = sized(0.3, 1.0)
_REPEATED = sized(8, 40)
# Who sees nothing for so long asks again, and perhaps another replica: a stall is no break.
_PATIENCE = 1.5
# Clients who take every processor would measure how fast a process starts that gets none.
_PAUSE = sized(0.0, 0.4)


@dataclass
class Faults:
    """What was done, and how long it took until all was well; net of waits for a processor."""

    kills: Counter[str] = field(default_factory=Counter)
    stalled: int = 0
    recoveries: list[float] = field(default_factory=list)
    net: list[float] = field(default_factory=list)


async def break_one(
    suite: Suite, mesh: Installation, work: Load, faults: Faults, *, stalls: bool
) -> None:
    """Kill or stall a process by chance, and wait until what it served is served again."""
    running_now = mesh.modules()
    if stalls:
        running_now = {name: pid for name, pid in running_now.items() if "agents" in name}
    name = suite.chance.choice(sorted(running_now))
    pid = running_now[name]
    suite.note("fault", process=name, pid=pid, stall=stalls)
    if stalls:
        faults.stalled += await mesh.stall(name)
        return
    faults.kills[name] += 1
    kill(pid)
    before = waited(mesh.pid)
    began = time.monotonic()
    recovered = await work.recovery(name.partition("-")[0], began)
    # One after the other: who starts it, and the process itself.
    waits = waited(mesh.pid) - before + waited(await mesh.another(name, pid))
    suite.note("recovered", process=name, seconds=recovered, waited=waits)
    faults.recoveries.append(recovered)
    faults.net.append(max(0.0, recovered - waits))


async def break_many(
    suite: Suite, mesh: Installation, work: Load, kills: int, stalls: int
) -> Faults:
    """Faults spread over the runs; returns what was done."""
    faults = Faults()
    plan = [False] * kills + [True] * stalls
    suite.chance.shuffle(plan)
    end = time.monotonic() + SECONDS
    for number, stalling in enumerate(plan):
        due = work.limit * number // len(plan) if FULL else 0
        while work.ended < due and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await asyncio.sleep(suite.chance.uniform(0, _SETTLING_SECONDS))
        await break_one(suite, mesh, work, faults, stalls=stalling)
    while FULL and work.ended < work.limit and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return faults


async def trial(
    suite: Suite, folder: Path, *defects: str, kills: int, stalls: int
) -> tuple[Findings, Faults, Load]:
    """One installation, its clients and its faults; what was found wrong, and what was done."""
    found = Findings(suite)
    limit = _FEW_RUNS if FULL and defects else RUNS
    async with ScriptedOpenAi() as model:
        model.script = good(WORDS, pace=0.03)
        settings = {"replicas": "agents:2", "llm_url": model.url, "llm_model": "scripted"}
        async with installed(folder, *defects, **settings) as mesh:
            began = time.monotonic()
            async with load(
                mesh, found, clients=CLIENTS, limit=limit, patience=_PATIENCE, pause=_PAUSE
            ) as work:
                faults = await break_many(suite, mesh, work, kills, stalls)
                await work.finish()
                took = time.monotonic() - began
                ended = [told for told in work.told if told.ended]
                some = suite.chance.sample(ended, min(_REPEATED, len(ended)))
                await each(some, work.repeat, workers=4)
            stored = await Stored.read(mesh.database_url)
        endings = judge(work.told, stored, WHOLE, found)
        asked = asked_twice([request.body for request in model.requests], found)
    silences = [seconds for told in work.told for seconds in told.silences]
    suite.say(
        f"{len(work.told)} runs in {took:.0f} s, {sum(faults.kills.values())} kills "
        f"{dict(faults.kills)}, {faults.stalled} stalled ones taken over; "
        f"recovery {spread(faults.recoveries)}, "
        f"net of waits for a processor {spread(faults.net)}; "
        f"silence of a cut stream {spread(silences)}; the model was asked {asked} times; "
        f"{dict(endings)}; refusals {dict(found.refusals)}"
    )
    return found, faults, work


@pytest.mark.timeout(600 + SECONDS if FULL else 120)
async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with running("killed-process") as suite:
        found, faults, work = await trial(
            suite, tmp_path / "data", kills=KILLS, stalls=max(1, KILLS // _STALL_EVERY)
        )
        found.require_none()
        assert percentile(faults.net, 0.95) < RECOVERY_SECONDS
        # Faults that cut no stream would have tried nothing.
        assert sum(told.breaks for told in work.told) >= KILLS
        assert faults.stalled


# Defects, what shows each, and whether a stalled process is what it takes.
_SHOWN = {
    "keys_are_forgotten": ({"twice"}, False),
    "owner_is_not_asked": ({"lost", "not in history"}, True),
}


async def _unseen(suite: Suite, folder: Path, defect: str, attempt: int) -> str:
    kinds, stalled = _SHOWN[defect]
    kills, stalls = int(not stalled), int(stalled)
    found, _, _ = await trial(
        suite, folder / f"{defect}-{attempt}", defect, kills=kills, stalls=stalls
    )
    return "" if found.kinds.keys() & kinds else f"{defect}: {found.kinds}"


@pytest.mark.timeout(300)
async def test_a_planted_defect_shows(tmp_path: Path) -> None:
    with running("killed-process-planted") as suite:
        for defect in suite.some(_SHOWN, 1):
            await until_shown(partial(_unseen, suite, tmp_path, defect))
