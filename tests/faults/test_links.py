"""A bad connection between any two: nobody waits past a deadline, and soon all is well again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.faults.links import HALF_OPEN, PAIRS, PASSING, RUN_SECONDS, Outcome, suffer
from tests.faults.suite import FULL, Suite, running, sized
from tests.faults.wired import wired

_CALM_SECONDS = 2.0
_FAULT_SECONDS = sized(2.0, 5.0)
_AFTER_SECONDS = sized(6.0, 8.0)
_BACK_SECONDS = 5.0
# The contract's margin, and what a busy machine adds.
_LATE_SECONDS = 0.25 + sized(1.75, 0.25)
_SHORT = 4
# After a connection died without a word, it takes these longer than it should until they try
# another: the gateway and the driver of PostgreSQL never ask whether anybody is still there, and
# the modules' channels do so every ten seconds.
_KNOWN_SLOW = {"gateway", "database", "modules"}


async def outcomes(
    suite: Suite, folder: Path, what: list[tuple[str, str]], *defects: str
) -> list[Outcome]:
    """What comes of some faults, one after the other."""
    folder.mkdir()
    settings = {"run_seconds": str(RUN_SECONDS)}
    async with wired(folder, *defects, chance=suite.chance, **settings) as mesh:
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            times = {"calm": _CALM_SECONDS, "seconds": _FAULT_SECONDS, "after": _AFTER_SECONDS}
            return [
                await suffer(suite, mesh, caller.token, pair, fault, **times)
                for pair, fault in what
            ]
        finally:
            await caller.close()


def late(made: Outcome) -> bool:
    """Whether a call that has a deadline passed it."""
    return made.latest("read", "write", "agents") > _LATE_SECONDS


@pytest.mark.timeout(900 if FULL else 180)
async def test_a_bad_connection_is_over_when_it_is_over(tmp_path: Path) -> None:
    with running("links") as suite:
        every = [(pair, fault) for pair in PAIRS for fault in PASSING]
        made = await outcomes(suite, tmp_path / "mesh", suite.some(every, _SHORT))
        assert [str(each) for each in made if late(each)] == []
        assert [str(each) for each in made if each.recovered() > _BACK_SECONDS] == []
        # A fault that nobody felt was none.
        assert any(each.during < 1 or each.slower > 2 for each in made)


@pytest.mark.timeout(900 if FULL else 180)
async def test_half_open_connections_are_left(tmp_path: Path) -> None:
    with running("links-half-open") as suite:
        pairs = suite.some(PAIRS, 2)
        made = await outcomes(suite, tmp_path / "mesh", [(pair, HALF_OPEN) for pair in pairs])
        assert [str(each) for each in made if late(each)] == []
        slow = {each.pair for each in made if each.recovered() > _BACK_SECONDS}
        assert slow <= _KNOWN_SLOW, [str(each) for each in made]


@pytest.mark.timeout(240)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("links-planted") as suite:
        defects = ("gateway_waits_for_ever", "breakers_stay_open")
        what = [("modules", "away"), ("gateway", HALF_OPEN)]
        breaker, waits = await outcomes(suite, tmp_path / "mesh", what, *defects)
        assert breaker.recovered() > _BACK_SECONDS
        assert late(waits)
