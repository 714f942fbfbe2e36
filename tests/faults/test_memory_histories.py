"""One memory space, sixteen writers, branches, rollbacks, writers that are killed: linearizable."""

from __future__ import annotations

import random
import time

import pytest

from tests.databases import KINDS, Databases
from tests.faults.memory_histories import Checker, History
from tests.faults.planted_memory import PLANTS
from tests.faults.planting import Plant
from tests.faults.suite import FULL, Suite, at_most, running, sized, until_shown
from tests.services.memory.house import House, built

_HISTORIES = sized(2, 500)
_SECONDS = at_most(sized(60.0, 900.0))


async def wrong(suite: Suite, house: House, number: int) -> list[str]:
    """What is wrong with one history."""
    history = History(house, f"shared/h{number}", random.Random(f"{suite.seed}/{number}"))
    await history.run()
    for op in history.ops:
        suite.note(op.kind, number=number, name=op.name, branch=op.branch, ended=op.ended)
    return await Checker(history).check()


@pytest.mark.timeout(60 + _SECONDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_histories_are_linearizable(databases: Databases, kind: str) -> None:
    with running(f"memory-histories-{kind}") as suite:
        house = await built(await databases.make(kind))
        began, done = time.monotonic(), 0
        while done < _HISTORIES and time.monotonic() - began < _SECONDS:
            assert await wrong(suite, house, done) == []
            done += 1
        suite.say(f"{kind}: {done} of {_HISTORIES} histories, {time.monotonic() - began:.0f} s")
        assert done > 0


# How each shows, on SQLite: what is planted is above the databases.
_SHOWN = {
    "heads_move_without_comparing": {"lost"},
    "rollbacks_lose_a_commit": {"lost"},
    "acknowledged_before_the_commit": {"lost"},
    "ends_are_not_noted": {"the feed differs"},
    "changes_are_stored_beside": {"not what was done"},
}


@pytest.mark.timeout(300 if FULL else 120)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
async def test_a_planted_defect_shows(
    databases: Databases, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(owner: object, name: str, value: object) -> None:
        monkeypatch.setattr(owner, name, value)

    with running(f"memory-histories-planted-{plant.__name__}") as suite:
        house = await built(await databases.make("sqlite"))
        monkeypatch.setattr("tests.faults.planting.setattr", planted, raising=False)
        plant()

        async def attempt(number: int) -> object:
            found = {each.partition(":")[0] for each in await wrong(suite, house, number)}
            return _SHOWN[plant.__name__] - found

        await until_shown(attempt)
