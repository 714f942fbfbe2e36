"""Kill -9 of everything at once, Envoy and PostgreSQL too, and a start on the same data.

Nobody repairs anything by hand: what was acknowledged is there, every run ends, and it is ready
within seconds.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults.load import Load, load
from tests.faults.processes import (
    DATABASE,
    GATEWAY,
    Installation,
    gone,
    installed,
    kill,
    longest_wait,
    waited,
)
from tests.faults.stored import Stored, asked_twice, judge
from tests.faults.suite import FULL, Suite, running, sized, until_shown
from tests.faults.told import Findings, spread
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

ROUNDS = sized(1, 10)
CLIENTS = 8
WORDS = tuple(f"word{number} " for number in range(20))
READY_SECONDS = 8.0
_BEFORE_SECONDS = (0.5, sized(1.5, 2.5))
# How long runs that were cut, and those at the end, are waited for; and where a planted defect
# leaves some of them without an end.
_PATIENCE, _SHORT_PATIENCE = (6.0, 10.0), (2.0, 0.5)


async def kill_all(suite: Suite, mesh: Installation) -> None:
    """End every process, in any order, or the first one alone: the others go with it."""
    pids = mesh.everything()
    alone = suite.chance.random() < 0.3
    suite.note("fault", pids=pids, alone=alone)
    if not alone:
        suite.chance.shuffle(pids)
        for pid in pids:
            kill(pid)
    await mesh.kill()
    if not alone:
        await gone(pids)


async def trial(
    suite: Suite, folder: Path, *defects: str, rounds: int
) -> tuple[Findings, list[float]]:
    """One installation that is killed whole; what was found wrong, and its starts.

    These are net of waits for a processor.
    """
    found, ready, net = Findings(suite), list[float](), list[float]()
    after, at_the_end = _SHORT_PATIENCE if defects else _PATIENCE
    async with ScriptedOpenAi() as model:
        model.script = good(WORDS, pace=0.05)
        settings = {"replicas": "agents:2", "llm_url": model.url, "llm_model": "scripted"}
        async with installed(folder, *defects, **settings) as mesh:
            async with load(mesh, found, clients=CLIENTS, limit=1_000_000) as work:
                for _ in range(rounds):
                    await asyncio.sleep(suite.chance.uniform(*_BEFORE_SECONDS))
                    if defects:
                        await text_is_shown(work)
                    await kill_all(suite, mesh)
                    ready.append(await mesh.start())
                    waits = waits_of_a_start(mesh)
                    net.append(max(0.0, ready[-1] - waits))
                    suite.note("ready", seconds=ready[-1], waited=waits)
                    await all_resumed(work, after)
                await work.finish(at_the_end)
            stored = await Stored.read(mesh.database_url)
        endings = judge(work.told, stored, "".join(WORDS), found)
        asked_twice([each.body for each in model.requests], found)
    suite.say(
        f"killed {rounds} times during {len(work.told)} runs; ready {spread(ready)}, "
        f"net of waits for a processor {spread(net)}; "
        f"{dict(endings)}; refusals {dict(found.refusals)}; {dict(found.kinds)}"
    )
    if rounds and not any(told.breaks for told in work.told):
        found.add("nothing cut", "no kill met a run")
    return found, net


def waits_of_a_start(mesh: Installation) -> float:
    """How long it waited for a processor: what goes on one after the other, not side by side.

    The first process prepares, the database recovers, then the slowest module is well, and last the
    gateway is there.
    """
    one_by_one = (mesh.pid, mesh.one(DATABASE), mesh.one(GATEWAY))
    return sum(waited(pid) for pid in one_by_one if pid) + longest_wait(mesh.modules().values())


async def text_is_shown(work: Load) -> None:
    """Wait until words arrive: in no kill before that would it show how they are kept."""
    async with asyncio.timeout(20):
        while not any(told.text and not told.ended for told in work.told):
            await asyncio.sleep(0.01)


async def all_resumed(work: Load, patience: float) -> None:
    """Wait until each run that was cut has ended, for as long as a run that is not lost takes."""
    cut = [told for told in work.told if not told.ended]
    end = time.monotonic() + patience
    while not all(told.ended for told in cut) and time.monotonic() < end:
        await asyncio.sleep(0.05)


@pytest.mark.timeout(600 if FULL else 120)
async def test_nothing_acknowledged_is_lost_with_everything(tmp_path: Path) -> None:
    with running("killed-whole") as suite:
        found, ready = await trial(suite, tmp_path / "data", rounds=ROUNDS)
        found.require_none()
        assert max(ready) < READY_SECONDS


# Defects, and what shows each.
_SHOWN = {
    "shown_before_kept": {"lost", "no end"},
    "repeated_append_is_another_message": {"twice in history"},
}


async def _unseen(suite: Suite, folder: Path, attempt: int) -> list[str]:
    found, _ = await trial(suite, folder / str(attempt), *_SHOWN, rounds=1)
    return [name for name, kinds in _SHOWN.items() if not found.kinds.keys() & kinds]


@pytest.mark.timeout(300)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("killed-whole-planted") as suite:
        await until_shown(partial(_unseen, suite, tmp_path))
