"""Erasure and retention: what must be gone is gone from everywhere, and the rest can be read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from plexus.options.v1.options_pb2 import Role
from sqlalchemy import LargeBinary, select

from services.memory.domain.values import At, Policy, Proposal, ProposalState
from services.memory.service.sweeping import Sweeping
from services.memory.store import forgetting
from services.memory.store.shared import Place
from services.memory.store.sweeping import Due
from services.memory.tables import branches, metadata, nodes, versions
from services.runtime import clock
from services.runtime.db import EVERYONE
from services.runtime.errors import NotFound
from tests.services.memory.conftest import SHARED, person, refused
from tests.services.memory.house import House, shown

ADA, BOB = person("usr_a"), person("usr_b")
ADMIN = person("usr_admin", role=Role.ROLE_ADMIN)
CANARY = "kanarie"
ABOUT_BOB = {"person": "usr_b", "subject": f"{CANARY} likes"}
PLACE = Place("ten_1", SHARED)


async def everything(house: House) -> str:
    """All that is kept, of every table, as one text."""
    found: list[Any] = []
    async with house.database.read(EVERYONE) as connection:
        for table in metadata.sorted_tables:
            columns = [each for each in table.c if not isinstance(each.type, LargeBinary)]
            found += (await connection.execute(select(*columns))).all()
    return repr(found)


async def count(house: House, table: Any) -> int:
    async with house.database.read(EVERYONE) as connection:
        return len((await connection.execute(select(table.c.space))).all())


async def filled(house: House) -> Any:
    """A space with much about somebody, in versions, branches and proposals."""
    first, (one, _) = await house.store(
        ADA, f"{CANARY} 40", "about nobody", space=SHARED, content=ABOUT_BOB
    )
    await house.store(ADA, "stays", space=SHARED)
    await house.store(ADA, f"{CANARY} 50", memory_id=one.memory_id, space=SHARED, content=ABOUT_BOB)
    await house.branching.add(ADA, branches, SHARED, "b", At())
    await house.store(ADA, f"{CANARY} 60", space=SHARED, branch="b", content=ABOUT_BOB)
    await house.store(ADA, f"{CANARY} 70", space=SHARED, propose=True, content=ABOUT_BOB)
    # His own words, in his own space, and about himself what his commits say.
    await house.store(BOB, f"{CANARY} secret", message=f"{CANARY} says")
    await house.store(BOB, "a fact", space=SHARED, message=f"{CANARY} says")
    return first


async def test_a_person_is_erased_from_everywhere(house: House) -> None:
    first = await filled(house)
    assert CANARY in await everything(house)
    before = (await house.feed())[-1].span.position
    done = await house.erased(ADMIN, "usr_b")
    assert done.end_time is not None
    assert (done.erased_versions, done.verified_places > 5) == (5, True)
    assert CANARY not in await everything(house)
    # Trees read as before, at every commit.
    assert await house.texts(ADA, SHARED) == ["a fact", "stays"]
    assert await house.texts(ADA, SHARED, At(branch="b")) == ["stays"]
    assert await house.texts(ADA, SHARED, At(commit_id=first.commit_id)) == []
    assert (await house.browsing.space(ADA, SHARED)).memory_count == 2
    with refused("NOT_FOUND"):
        await house.texts(BOB)
    told = shown(await house.feed(after=before))
    assert sum(text == "" for text, _ in told) == 4
    assert all(text == "" or CANARY not in text for text, _ in told)
    # It can go on, and what is stored again about him is a new matter.
    await house.store(BOB, "again")
    assert await house.texts(BOB) == ["again"]
    listed, _ = await house.caring.erasures(ADMIN, 0, "")
    assert [each.erasure_id for each in listed] == [done.erasure_id]


async def test_erasure_is_asked_for_once_and_ends_by_itself(house: House) -> None:
    await filled(house)
    asked = await asyncio.gather(*(house.caring.erase(ADMIN, "usr_b") for _ in range(5)))
    assert len({each.erasure_id for each in asked}) == 1
    work = [asyncio.create_task(house.erasing.run()) for _ in range(2)]
    async with asyncio.timeout(20):
        while (await house.caring.erasure(ADMIN, asked[0].erasure_id)).end_time is None:
            await asyncio.sleep(0.02)
    for each in work:
        each.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    assert CANARY not in await everything(house)
    with pytest.raises(NotFound):
        await house.caring.erasure(person("usr_a", tenant="ten_2"), asked[0].erasure_id)


async def test_what_comes_after_an_erasure_is_not_its_to_take(house: House) -> None:
    await filled(house)
    asked = await house.caring.erase(ADMIN, "usr_b")
    await house.erasing.erase(asked)
    await house.store(person("usr_b"), "I am back.")
    # By another process, which saw it waiting before.
    await house.erasing.erase(asked)
    assert await house.texts(person("usr_b")) == ["I am back."]


class Killed(Exception):
    """The process ends here."""


async def test_erasure_goes_on_after_a_kill_between_any_two_steps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(house)
    asked = await house.caring.erase(ADMIN, "usr_b")
    real, kills = house.database.transaction, 0
    for after in range(40):
        left = after

        def transaction(whose: Any = None) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(whose)

        monkeypatch.setattr(house.database, "transaction", transaction)
        try:
            await house.erasing.erase(asked)
        except Killed:
            kills += 1
            # Of an erasure that is half done the feed tells all the same, also from its begin.
            await house.feed()
        else:
            break
    monkeypatch.undo()
    assert kills >= 5
    assert (await house.caring.erasure(ADMIN, asked.erasure_id)).end_time is not None
    assert CANARY not in await everything(house)


async def test_a_plant_that_is_left_is_found_by_the_scan(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(house)

    async def nothing(*_: Any) -> bool:
        return False

    monkeypatch.setattr(forgetting, "forget", nothing)
    assert (await house.erased(ADMIN, "usr_b")).end_time is None


async def sweep(house: House, keep: int | None) -> None:
    await house.sweeping.sweep(Due(PLACE, keep, 0))


async def test_old_versions_go_and_what_is_shown_stays(house: House) -> None:
    first, (one,) = await house.store(ADA, "one", space=SHARED)
    second, _ = await house.store(ADA, "two", memory_id=one.memory_id, space=SHARED)
    assert first is not None
    assert second is not None
    await house.branching.add(ADA, branches, SHARED, "kept", At(commit_id=second.commit_id))
    third, _ = await house.store(ADA, "three", memory_id=one.memory_id, space=SHARED)
    assert third is not None
    await house.store(ADA, "four", memory_id=one.memory_id, space=SHARED)
    await sweep(house, None)
    assert await count(house, versions) == 4
    await asyncio.sleep(0.01)
    await sweep(house, 1)
    assert await count(house, versions) == 2
    assert await count(house, nodes) == 2
    assert await house.texts(ADA, SHARED) == ["four"]
    assert await house.texts(ADA, SHARED, At(branch="kept")) == ["two"]
    for gone in (first, third):
        with refused("NOT_FOUND"):
            await house.texts(ADA, SHARED, At(commit_id=gone.commit_id))
    line, _ = await house.browsing.commits(ADA, SHARED, At(), 0, "")
    assert len(line) == 4
    told = shown(await house.feed())
    assert told.count(("", True)) == 2
    # Where the branch began is still known, so that it can be merged.
    await house.store(ADA, "five", memory_id=one.memory_id, space=SHARED, branch="kept")
    _, conflicts, _ = await house.merge(ADA, "kept", SHARED)
    assert len(conflicts) == 1


async def test_what_a_deleted_branch_had_alone_goes(house: House) -> None:
    await house.store(ADA, "one", space=SHARED)
    await house.branching.add(ADA, branches, SHARED, "b", At())
    made, _ = await house.store(ADA, "two", space=SHARED, branch="b")
    assert made is not None
    await sweep(house, None)
    assert await house.texts(ADA, SHARED, At(commit_id=made.commit_id)) == ["one", "two"]
    await house.branching.delete(ADA, branches, SHARED, "b")
    await house.sweeping.sweep_due()
    with refused("NOT_FOUND"):
        await house.texts(ADA, SHARED, At(commit_id=made.commit_id))
    assert (await count(house, versions), await count(house, nodes)) == (1, 1)
    assert await house.texts(ADA, SHARED) == ["one"]


async def test_sweeping_beside_writers_takes_nothing_that_is_shown(house: House) -> None:
    policy = Policy(keep_versions=3_600_000_000)
    await house.browsing.update_space(ADMIN, SHARED, policy, None, "")
    # What was stored while it marks is as young as it is for an operator.
    careful = Sweeping(house.desk, house.sweeping._replies, 3600.0)
    commits: list[str] = []

    async def writer(number: int) -> None:
        for turn in range(8):
            made, _ = await house.store(ADA, f"fact {number} {turn}", space=SHARED)
            assert made is not None
            commits.append(made.commit_id)
            if turn % 4 == 3:
                name = f"b{number}"
                await house.branching.add(ADA, branches, SHARED, f"{name}-{turn}", At())
                await house.branching.delete(ADA, branches, SHARED, f"{name}-{turn}")

    async def sweeper() -> None:
        while not written.done():
            await careful.sweep(Due(PLACE, 1, 0))
            await asyncio.sleep(0)

    written = asyncio.gather(*map(writer, range(4)))
    await asyncio.gather(written, sweeper())
    assert len(await house.texts(ADA, SHARED)) == 32
    line, _ = await house.browsing.commits(ADA, SHARED, At(), 100, "")
    assert {each.commit_id for each in line} == set(commits)


async def test_what_was_let_go_of_is_forgotten_in_time(house: House) -> None:
    _, (stored,) = await house.store(ADA, "one", propose=True)
    decided: tuple[Proposal, Any] = await house.caring.decide(ADA, stored.proposal_id, accept=False)
    assert decided[0].state == ProposalState.REJECTED
    await house.sweeping.purge()
    rejected, _ = await house.caring.proposals(ADA, "", ProposalState.REJECTED, 0, "")
    assert len(rejected) == 1
    month = 31 * 24 * 3600 * clock.SECOND
    with pytest.MonkeyPatch.context() as later:
        real = clock.now
        later.setattr(clock, "now", lambda: real() + month)
        await house.sweeping.purge()
    rejected, _ = await house.caring.proposals(ADA, "", ProposalState.REJECTED, 0, "")
    assert rejected == []
