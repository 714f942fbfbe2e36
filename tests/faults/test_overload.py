"""Five times what can be done, most of it one tenant's: the others are served as before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.faults.overload import Calls, Tenant, begin_noise, end_noise, percentile
from tests.faults.suite import FULL, Suite, running, sized, until_shown
from tests.faults.world import FaultyMesh, up

_SECONDS = sized(1.5, 10.0)
# How long there is nothing but noise at first: as a queue that may grow has to.
_EARLIER_SECONDS = 0.5
_OTHERS = 4
# What each of the others asks for, as a share of what can be done.
_SHARE = 0.08
_TIMES = 5.0
# The goals are twice as long, four fifths and 20 ms. The short form has few calls, and others use
# the machine at the same time: it holds what they cannot blur.
_LONGER = sized(4.0, 2.0)
_GOODPUT = sized(0.5, 0.8)
_REFUSAL_MS = 20.0


@dataclass(frozen=True)
class Siege:
    """What came of it; calls a second, and what the others and the noisy one got."""

    peak: float
    calm: Calls
    others: Calls
    noisy: Calls

    @property
    def longer(self) -> float:
        """How many times as long the others' slowest calls took."""
        return percentile(self.others.good, 99) / percentile(self.calm.good, 99)

    @property
    def goodput(self) -> float:
        """What was done, as a share of the most that can be."""
        noisy = self.noisy.soon / (_SECONDS + _EARLIER_SECONDS)
        return (self.others.soon / _SECONDS + noisy) / self.peak

    @property
    def refuses_late(self) -> bool:
        """Whether a refusal takes too long: in the short form, as long as a call that is served."""
        most = _REFUSAL_MS if FULL else percentile(self.calm.good, 99)
        return percentile(self.noisy.refused, 50) >= most

    def __str__(self) -> str:
        calls = len(self.others.good) + len(self.others.refused)
        noisy = len(self.noisy.good) + len(self.noisy.refused)
        p50, p99 = (percentile(self.noisy.refused, share) for share in (50, 99))
        return (
            f"peak {self.peak:.0f}/s; noisy {noisy / _SECONDS:.0f}/s, "
            f"{dict(self.noisy.reasons)}; others p99 {percentile(self.others.good, 99):.1f} ms "
            f"against {percentile(self.calm.good, 99):.1f} ms calm, ratio {self.longer:.1f}; "
            f"{len(self.others.refused)} of {calls} refused {dict(self.others.reasons)}; goodput "
            f"{self.goodput:.2f} of the peak; refusals p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )


async def siege(suite: Suite, folder: Path, *defects: str, **settings: str) -> Siege:
    """Find what can be done, then ask for five times as much."""
    async with up(folder, *defects, **settings) as mesh:
        others = [await _tenant(mesh) for _ in range(_OTHERS)]
        loud, token = await _loud(mesh)
        peak = (await loud.greedily(12, _SECONDS)).soon / _SECONDS
        each = peak * _SHARE
        calm = await _steadily(others, each)
        rate = peak * (_TIMES - _OTHERS * _SHARE)
        shouting = await begin_noise(mesh.url, token, rate, _SECONDS + _EARLIER_SECONDS)
        await asyncio.sleep(_EARLIER_SECONDS)
        besieged = await _steadily(others, each)
        made = Siege(peak, calm, besieged, await end_noise(shouting))
        for tenant in (*others, loud):
            await tenant.close()
    suite.say(str(made))
    return made


async def _loud(mesh: FaultyMesh) -> tuple[Tenant, str]:
    caller = Grpc(mesh.url)
    await sign_up(caller)
    await caller.close()
    return Tenant(mesh.url, caller.token), caller.token


async def _tenant(mesh: FaultyMesh) -> Tenant:
    return (await _loud(mesh))[0]


async def _steadily(tenants: list[Tenant], rate: float) -> Calls:
    found = Calls()
    for made in await asyncio.gather(*(each.steadily(rate, _SECONDS) for each in tenants)):
        found.add(made)
    return found


# A process that takes no more than it can do soon: twice what gets its turn at once.
_TIGHT = "16"
# What there is too much of is waiting; the processor has time to refuse.
_WAITING = ("profiles_take_turns",)


@pytest.mark.timeout(300 if FULL else 120)
async def test_others_are_served(tmp_path: Path) -> None:
    with running("overload") as suite:
        check(await siege(suite, tmp_path / "data", *_WAITING, max_calls=_TIGHT))


def check(made: Siege) -> None:
    """What must hold."""
    assert made.noisy.lost == made.others.lost == 0
    assert made.noisy.refused, "there was no overload"
    assert made.longer < _LONGER
    assert made.goodput > _GOODPUT
    assert not made.refuses_late
    assert len(made.others.refused) < 0.05 * len(made.others.good)


# Defects, and what shows each.
_SHOWN: dict[str, Callable[[Siege], bool]] = {
    "everyone_is_let_in": lambda made: made.longer > _LONGER or made.others.lost > 0,
    "refusals_are_work": lambda made: made.refuses_late,
}


async def _unseen(suite: Suite, folder: Path, defect: str, attempt: int) -> str:
    place = folder / f"{defect}-{attempt}"
    made = await siege(suite, place, *_WAITING, defect, max_calls=_TIGHT)
    return "" if _SHOWN[defect](made) and made.noisy.lost else f"{defect}: {made}"


@pytest.mark.timeout(300)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("overload-planted") as suite:
        for defect in suite.some(_SHOWN, 1):
            await until_shown(partial(_unseen, suite, tmp_path, defect))
