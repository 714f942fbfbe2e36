"""The feed: one order without gaps, also where many write at once; and what is found by words."""

from __future__ import annotations

import asyncio

from services.memory.domain.values import At, Kind, Wanted
from services.memory.ports import Found, Hit
from services.memory.tables import branches
from services.runtime.context import mesh_principal
from tests.services.memory.conftest import SHARED, person, refused
from tests.services.memory.house import House, shown

ADA, BOB = person("usr_a"), person("usr_b")


async def test_a_version_comes_when_it_begins_and_again_when_it_ends(house: House) -> None:
    _, (one,) = await house.store(ADA, "one")
    await house.store(ADA, "two")
    assert shown(await house.feed()) == [("one", False), ("two", False)]
    after = (await house.feed())[-1].span.position
    await house.store(ADA, "one again", memory_id=one.memory_id)
    await house.branching.add(ADA, branches, "", "b", At())
    await house.store(ADA, "on a branch", branch="b")
    assert shown(await house.feed(after=after)) == [("one", True), ("one again", False)]
    assert shown(await house.feed()) == [("two", False), ("one", True), ("one again", False)]
    first = (await house.feed())[1].span
    assert first.until == (await house.feed())[2].span.since
    await house.merge(ADA, "b")
    assert shown(await house.feed())[-1] == ("on a branch", False)


async def test_readers_miss_nothing_while_many_write(house: House) -> None:
    """A reader that only goes on from what it read sees every change, in spaces and tenants."""
    writers = [person(f"usr_{n}", tenant=f"ten_{n % 3}") for n in range(8)]
    read: list[int] = []
    done = asyncio.Event()

    async def reader() -> None:
        after = 0
        while True:
            over = done.is_set()
            for each in await house.feed(after=after):
                assert each.span.position > after
                after = each.span.position
                read.append(after)
            if over:
                return
            await asyncio.sleep(0)

    async def writer(number: int) -> None:
        for text in range(6):
            await house.store(writers[number], f"fact {text} of {number}")

    task = asyncio.create_task(reader())
    await asyncio.gather(*map(writer, range(8)))
    done.set()
    await task
    assert read == list(range(1, 49))
    assert len(await house.feed(mesh_principal("ten_0"))) == 18


async def test_a_watcher_hears_of_what_comes(house: House) -> None:
    positions = house.feeding.watch()
    assert await anext(positions) == 0
    waiting = asyncio.ensure_future(anext(positions))
    await house.store(ADA, "one")
    assert await asyncio.wait_for(waiting, 10) == 1
    await positions.aclose()


async def test_an_index_finds_and_memory_says_what_is_there(house: House) -> None:
    first, (one, two) = await house.store(ADA, "the blue door", "the red door")
    assert first is not None
    hits = [
        Hit(each.memory_id, each.version_id, lexical=True, semantic=number == 0)
        for number, each in enumerate((two, one))
    ]
    gone = Hit("mem_" + "0" * 26, "ver_0", lexical=True, semantic=False)
    house.search.found = Found((gone, *hits))
    answer = await house.retrieve(ADA, "door")
    assert [each.memory.version.memory_id for each in answer.found] == [
        two.memory_id,
        one.memory_id,
    ]
    assert [each.semantic for each in answer.found] == [True, False]
    assert (answer.degraded, answer.commit_id) == (False, first.commit_id)
    assert house.search.asked == [("door", "user/usr_a", None)]
    # What the index says of a version that is over is not told.
    await house.store(ADA, "the gate", memory_id=one.memory_id)
    answer = await house.retrieve(ADA, "door")
    assert [each.memory.version.memory_id for each in answer.found] == [two.memory_id]
    answer = await house.retrieve(ADA, "door", at=At(commit_id=first.commit_id))
    assert len(answer.found) == 2
    assert house.search.asked[-1] == ("door", "user/usr_a", first.create_time)


async def test_what_the_index_does_not_have_yet_is_found_by_its_words(house: House) -> None:
    _, (old,) = await house.store(ADA, "the blue door")
    hit = Hit(old.memory_id, old.version_id, lexical=True, semantic=False)
    _, (new,) = await house.store(ADA, "the yellow door")
    house.search.found = Found((hit,))
    assert len((await house.retrieve(ADA, "door")).found) == 1
    house.search.found = Found((hit,), stale=True)
    answer = await house.retrieve(ADA, "door")
    assert {each.memory.version.memory_id for each in answer.found} == {
        old.memory_id,
        new.memory_id,
    }
    await house.branching.add(ADA, branches, "", "b", At())
    await house.store(ADA, "the door on a branch", branch="b")
    await house.store(ADA, "the house", memory_id=old.memory_id, branch="b")
    house.search.found = Found((hit,))
    answer = await house.retrieve(ADA, "door", at=At(branch="b"))
    assert [each.memory.version.content.text for each in answer.found] == ["the door on a branch"]


async def test_without_an_index_words_do_and_the_answer_says_so(house: House) -> None:
    await house.store(ADA, "the blue door", "the red fox", space=SHARED)
    answer = await house.retrieve(BOB, "door", name=SHARED)
    assert (answer.degraded, len(answer.found)) == (True, 1)
    assert answer.found[0].lexical
    await house.store(ADA, "a blue day", content={"kind": Kind.EXPERIENCE}, space=SHARED)
    only = Wanted(kind=Kind.EXPERIENCE, valid_at=None)
    assert len((await house.retrieve(BOB, "blue", name=SHARED, wanted=only)).found) == 1
    with refused("NOT_FOUND"):
        await house.retrieve(BOB, "blue", name="user/usr_a")


async def test_what_holds_no_more_is_found_only_where_it_is_asked_for(house: House) -> None:
    await house.store(ADA, "once", content={"valid_until": 5})
    found = await house.retrieve(ADA, "", wanted=Wanted(valid_at=6))
    assert found.found == []
    for wanted in (Wanted(valid_at=4), Wanted(valid_at=None)):
        assert len((await house.retrieve(ADA, "", wanted=wanted)).found) == 1
