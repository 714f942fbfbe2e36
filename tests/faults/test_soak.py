"""A process that works for long holds no more than one that has just begun."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.e2e.test_up import gateway_of
from tests.faults.soak import FLAT, Soak, Soaking
from tests.faults.suite import FULL, Suite, at_most, running, sized
from tests.faults.world import FaultyMesh
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

_WORDS = tuple(f"w{n} " for n in range(12))
_RUNS_A_LOT = sized(32, 500)
_LOTS = sized(8, 10)
_RUNS_OF_PLANTED = 32
_FULL_SECONDS = at_most(180.0)
# A hundred calls cannot say how many bytes each left: pages are 4 kB, and at first caches grow. How
# many objects Python has is exact but for some hundreds that come and go; what leaks a run leaves
# more of them for each call than the short form allows.
# In the full form SQLite's page caches, two megabytes a connection, are filling still: what is in
# them is no object. After so many calls they are full.
_BYTES = sized(16384.0, 1024.0)
_MANY_CALLS, _BYTES_OF_MANY = 100_000, 32.0
_BLOCKS = sized(8.0, 0.05)
_GATEWAY_BYTES = sized(8192.0, 256.0)
# What a moment may have open besides: a connection that is being closed.
_SPARE = 3


async def soaked(
    suite: Suite,
    folder: Path,
    *defects: str,
    lots: int,
    seconds: float,
    runs: int = _RUNS_A_LOT,
) -> Soak:
    """So many lots, or more for as long as the time lasts."""
    folder.mkdir()
    gauges = folder / "gauges.jsonl"
    async with ScriptedOpenAi() as model:
        model.script = good(_WORDS, pace=0.002)
        mesh = FaultyMesh(
            folder / "data",
            *("gauges_are_written", *defects),
            llm_url=model.url,
            llm_model="scripted",
            gauges=str(gauges),
        )
        await mesh.start()
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            gateway = gateway_of(mesh.pid)
            soaking = Soaking(suite, caller, gauges, gateway)
            began = time.monotonic()
            number = 0
            while number < lots or time.monotonic() - began < seconds:
                await soaking.lot(runs)
                # What it was asked is of no use here, and would be a leak of the test's own.
                model.requests.clear()
                number += 1
        finally:
            await caller.close()
            await mesh.kill()
    suite.say(str(soaking.made))
    return soaking.made


def grown(made: Soak) -> dict[str, float]:
    """What is held more and more of."""
    most = _BYTES_OF_MANY if made.calls >= _MANY_CALLS else _BYTES
    slopes = {
        "bytes": most,
        "blocks": _BLOCKS,
        "gateway": _GATEWAY_BYTES,
    }
    found = {each: made.slope(each) for each, most in slopes.items() if made.slope(each) > most}
    return found | {what: made.growth(what) for what in FLAT if made.growth(what) > _SPARE}


@pytest.mark.timeout(700 + _FULL_SECONDS if FULL else 180)
async def test_it_holds_no_more_than_at_first(tmp_path: Path) -> None:
    with running("soak") as suite:
        made = await soaked(suite, tmp_path / "soak", lots=_LOTS, seconds=sized(0.0, _FULL_SECONDS))
        assert grown(made) == {}
        # Where the machine stands still for seconds a call is refused, or may pass its deadline.
        runs = sum(made.ends.values()) - made.ends["LIMIT_REACHED"]
        assert runs > 0.5 * sum(made.ends.values()), made.ends
        assert made.ends["run_completed"] + made.ends["run_cancelled"] > 0.97 * runs, made.ends
        assert made.ends["run_cancelled"] > 0.15 * runs


@pytest.mark.timeout(180)
async def test_every_planted_leak_shows(tmp_path: Path) -> None:
    with running("soak-planted") as suite:
        defects = ("runs_are_remembered", "cancelled_runs_leave_a_task", "runs_leave_a_file")
        made = await soaked(
            suite, tmp_path / "soak", *defects, lots=6, seconds=0.0, runs=_RUNS_OF_PLANTED
        )
        assert {"blocks", "tasks", "files"} <= grown(made).keys()
