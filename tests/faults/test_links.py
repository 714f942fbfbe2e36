"""A bad connection between any two: nobody waits past a deadline, and soon all is well again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from services.app import MODULES
from services.packaged import PackagedPostgres
from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.faults import links
from tests.faults.links import HALF_OPEN, PAIRS, PASSING, RUN_SECONDS, Load, Outcome, suffer
from tests.faults.suite import FULL, Suite, running, sized, until_shown
from tests.faults.wired import GROUPS, wired

_CALM_SECONDS = sized(1.0, 1.5)
_FAULT_SECONDS = sized(1.5, 4.0)
# Until so many calls have failed that a breaker opens, on a machine that makes few of them.
_PLANTED_SECONDS = 8.0
# At least and at most: no longer than until all has been well for a while.
_AFTER_SECONDS = sized((1.5, 6.5), (3.0, 8.0))
_BACK_SECONDS = 5.0
_WELL = 0.5
# The contract's margin, and what a busy machine adds.
_LATE_SECONDS = 0.25 + sized(1.75, 0.25)


async def outcomes(
    suite: Suite,
    folder: Path,
    server: PackagedPostgres,
    what: Sequence[tuple[str, str]],
    *defects: str,
    seconds: float = _FAULT_SECONDS,
) -> list[Outcome]:
    """What comes of some faults, one after the other."""
    folder.mkdir()
    settings = {"run_seconds": str(RUN_SECONDS)}
    async with wired(folder, server, *defects, chance=suite.chance, **settings) as mesh:
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            times = {"calm": _CALM_SECONDS, "seconds": seconds}
            return [
                await suffer(suite, mesh, caller.token, pair, fault, **times, after=_AFTER_SECONDS)
                for pair, fault in what
            ]
        finally:
            await caller.close()


def late(made: Outcome) -> bool:
    """Whether a call that has a deadline passed it."""
    return made.latest("read", "write", "agents") > _LATE_SECONDS


@pytest.mark.timeout(900 if FULL else 120)
async def test_a_bad_connection_is_over_when_it_is_over(
    tmp_path: Path, postgres: PackagedPostgres
) -> None:
    with running("links") as suite:
        # A connection that died without a word is the worst of them: the short form has one too.
        what = suite.some([(pair, fault) for pair in PAIRS for fault in PASSING], 1)
        what += suite.some([(pair, HALF_OPEN) for pair in PAIRS], 1)
        made = await outcomes(suite, tmp_path / "mesh", postgres, what)
        assert [str(each) for each in made if late(each)] == []
        back = {str(each): each.recovered(each.before) for each in made}
        assert [each for each, seconds in back.items() if seconds > _BACK_SECONDS] == []
        # Where half of the calls fail without a fault, nothing can be told of one.
        assert [str(each) for each in made if each.before < _WELL] == []
        # A fault that touched nothing was none.
        assert [str(each) for each in made if not each.touched] == []


def test_every_module_is_wired() -> None:
    wired_up = [module for group in GROUPS for module in group.split("+")]
    assert sorted(wired_up) == sorted(MODULES)


async def test_who_waits_has_not_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_STEADY_SECONDS", 0.0)

    class Quiet(Load):
        async def _unary(self, path: str, request: bytes) -> None:
            """Well at once."""

        async def _process(self) -> None:
            await asyncio.sleep(3600)

    load = Quiet("127.0.0.1:1", "")
    running = asyncio.create_task(load.run())
    await asyncio.sleep(0.1)
    await load.go_on(healed := load.now, 0.0, 2.5)
    assert load.now - healed >= 2.5
    running.cancel()
    await load.close()


# Defects, what shows each, and how.
_SHOWN: dict[str, tuple[tuple[str, str], Callable[[Outcome], bool]]] = {
    "breakers_stay_open": (("modules", "away"), lambda made: made.recovered() > _BACK_SECONDS),
    "gateway_waits_for_ever": (("gateway", HALF_OPEN), late),
}


async def _unseen(
    suite: Suite, folder: Path, server: PackagedPostgres, defects: Sequence[str], attempt: int
) -> list[str]:
    what = [_SHOWN[each][0] for each in defects]
    place = folder / str(attempt)
    made = await outcomes(suite, place, server, what, *defects, seconds=_PLANTED_SECONDS)
    both = zip(defects, made, strict=True)
    return [f"{defect}: {each}" for defect, each in both if not _SHOWN[defect][1](each)]


@pytest.mark.timeout(300)
async def test_every_planted_defect_shows(tmp_path: Path, postgres: PackagedPostgres) -> None:
    with running("links-planted") as suite:
        await until_shown(partial(_unseen, suite, tmp_path, postgres, suite.some(_SHOWN, 1)))
