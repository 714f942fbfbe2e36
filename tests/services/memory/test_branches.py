"""Branches, tags, merges, rollbacks, diffs and time, on both databases."""

from __future__ import annotations

import pytest

from services.memory.domain.merging import Side
from services.memory.domain.values import MAIN, At
from services.memory.service import branching
from services.memory.tables import branches, tags
from services.runtime.errors import PlexusError
from tests.services.memory.conftest import person, refused
from tests.services.memory.house import House

ADA = person("usr_a")
ABOUT = {"subject": "the invoice"}


async def branch(house: House, name: str, at: At | None = None) -> None:
    await house.branching.add(ADA, branches, "", name, at or At())


async def texts(house: House, name: str = MAIN) -> list[str]:
    return await house.texts(ADA, at=At(branch=name))


async def change(house: House, memory_id: str, text: str, name: str = MAIN) -> None:
    await house.store(ADA, text, memory_id=memory_id, branch=name)


async def test_a_branch_goes_its_own_way_and_comes_back(house: House) -> None:
    _, (one, two, three) = await house.store(ADA, "one", "two", "three")
    await branch(house, "b")
    await house.store(ADA, "four", branch="b")
    await change(house, one.memory_id, "one on b", "b")
    await house.storing.delete(ADA, two.memory_id, "b")
    await change(house, three.memory_id, "three on main")
    assert await texts(house) == ["one", "three on main", "two"]
    assert await texts(house, "b") == ["four", "one on b", "three"]
    dry = await house.merge(ADA, "b", dry_run=True)
    assert (dry, await texts(house)) == ((None, [], 3), ["one", "three on main", "two"])
    made, conflicts, changed = await house.merge(ADA, "b", message="done")
    assert (len(made.parents), conflicts, changed) == (2, [], 3)
    assert (made.added, made.changed, made.removed) == (1, 1, 1)
    assert await texts(house) == ["four", "one on b", "three on main"]
    assert await house.merge(ADA, "b") == (None, [], 0)
    # What comes after is merged against the first merge.
    await house.store(ADA, "five", branch="b")
    assert (await house.merge(ADA, "b"))[2] == 1
    assert (await house.merge(ADA, MAIN, into="b"))[2] == 1
    assert await texts(house) == await texts(house, "b")


async def test_what_both_changed_needs_a_word(house: House) -> None:
    _, (one, two) = await house.store(ADA, "one", "two")
    await branch(house, "b")
    for each, name in ((one, "b"), (two, "b"), (one, MAIN)):
        await change(house, each.memory_id, f"{each.memory_id} on {name}", name)
    await house.storing.delete(ADA, two.memory_id, MAIN)
    made, conflicts, _ = await house.merge(ADA, "b")
    assert made is None
    assert {each[0] for each in conflicts} == {one.memory_id, two.memory_id}
    for memory_id, base, ours, theirs in conflicts:
        assert base.version.content.text in ("one", "two")
        assert theirs.version.content.text == f"{memory_id} on b"
        assert (ours is None) == (memory_id == two.memory_id)
    sides = {one.memory_id: Side.OURS, two.memory_id: Side.THEIRS}
    made, conflicts, changed = await house.merge(ADA, "b", sides=sides)
    assert (conflicts, changed) == ([], 1)
    assert await texts(house) == sorted([f"{one.memory_id} on main", f"{two.memory_id} on b"])
    with refused("STALE_HEAD"):
        await house.merge(ADA, "b", expected_head="cmt_other")


async def test_the_same_change_on_both_is_no_conflict(house: House) -> None:
    _, (one,) = await house.store(ADA, "one")
    await branch(house, "b")

    for name in ("b", MAIN):
        await change(house, one.memory_id, "two", name)
    _, conflicts, changed = await house.merge(ADA, "b")
    assert (conflicts, changed) == ([], 0)
    for name in ("b", MAIN):
        await house.storing.delete(ADA, one.memory_id, name)
    _, conflicts, changed = await house.merge(ADA, "b")
    assert (conflicts, changed, await texts(house)) == ([], 0, [])


async def test_what_says_otherwise_is_linked_where_branches_meet(house: House) -> None:
    await house.store(ADA, "begin")
    await branch(house, "b")
    _, (ours,) = await house.store(ADA, "The total is 40 euros", content=ABOUT)
    _, (theirs,) = await house.store(ADA, "The total is 50 euros", content=ABOUT, branch="b")
    assert theirs.contradicts == ()
    await house.merge(ADA, "b")
    for one, other in ((ours, theirs), (theirs, ours)):
        found = await house.browsing.memory(ADA, one.memory_id, At())
        assert found.contradicts == (other.memory_id,)
    found = await house.browsing.memory(ADA, theirs.memory_id, At(branch="b"))
    assert found.contradicts == ()


async def test_a_rollback_is_a_new_commit(house: House) -> None:
    first, (one,) = await house.store(ADA, "one")
    assert first is not None
    await house.store(ADA, "two")
    await change(house, one.memory_id, "one again")
    made = await house.branching.roll_back(ADA, "", MAIN, At(commit_id=first.commit_id), "", "back")
    assert made is not None
    assert (made.added, made.changed, made.removed, made.root) == (0, 1, 1, first.root)
    assert await texts(house) == ["one"]
    again = await house.branching.roll_back(ADA, "", MAIN, At(commit_id=first.commit_id), "", "")
    assert again is None
    nothing = await house.branching.roll_back(ADA, "", MAIN, At(time=1), "", "")
    assert nothing is not None
    assert await texts(house) == []
    await house.branching.roll_back(ADA, "", MAIN, At(commit_id=made.commit_id), "", "")
    assert await texts(house) == ["one"]
    line, _ = await house.browsing.commits(ADA, "", At(), 0, "")
    assert len(line) == 6
    assert await house.texts(ADA, at=At(time=first.create_time)) == ["one"]
    assert await house.texts(ADA, at=At(time=first.create_time - 1)) == []
    found, _ = await house.browsing.versions(ADA, one.memory_id, "", 0, "")
    told = [each.version.content.text if each else "" for each, _ in found]
    assert told == ["one", "", "one", "one again", "one"]


async def test_versions_on_a_branch_go_on_where_it_began(house: House) -> None:
    _, (one,) = await house.store(ADA, "one")
    await change(house, one.memory_id, "two")
    await branch(house, "b")
    await change(house, one.memory_id, "not on b")
    await change(house, one.memory_id, "three", "b")
    await house.storing.delete(ADA, one.memory_id, "b")
    found, token = [], ""
    while True:
        page, token = await house.browsing.versions(ADA, one.memory_id, "b", 1, token)
        found += [each.version.content.text if each else "" for each, _ in page]
        if not token:
            break
    assert found == ["", "three", "two", "one"]


async def test_names_are_one_each(house: House) -> None:
    first, _ = await house.store(ADA, "one")
    assert first is not None
    at = At(commit_id=first.commit_id)
    tag = await house.branching.add(ADA, tags, "", "v1", at)
    assert await house.branching.add(ADA, tags, "", "v1", at) == tag
    await house.store(ADA, "two")
    assert await house.texts(ADA, at=At(tag="v1")) == ["one"]
    with refused("NAME_TAKEN"):
        await house.branching.add(ADA, tags, "", "v1", At())
    await branch(house, "b", at)
    with refused("NAME_TAKEN"):
        await branch(house, "b")
    with refused("INVALID_REQUEST"):
        await house.branching.delete(ADA, branches, "", MAIN)
    for table, name in ((tags, "v1"), (branches, "b")):
        await house.branching.delete(ADA, table, "", name)
        with refused("NOT_FOUND"):
            await house.branching.delete(ADA, table, "", name)
        with refused("NOT_FOUND"):
            await house.texts(ADA, at=At(tag="v1") if table is tags else At(branch="b"))
    names, _ = await house.branching.names(ADA, branches, "", 0, "")
    assert [each.name for each in names] == [MAIN]


async def test_bounds_of_names_and_of_a_commit(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await house.store(ADA, *(f"fact {n}" for n in range(10)))
    assert first is not None
    monkeypatch.setattr(branching, "_MAX_NAMES", 2)
    await branch(house, "b")
    with refused("LIMIT_REACHED"):
        await branch(house, "c")
    monkeypatch.setattr(branching, "_MAX_CHANGES", 9)
    with pytest.raises(PlexusError) as much:
        await house.branching.roll_back(ADA, "", MAIN, At(time=1), "", "")
    assert much.value.metadata == {"limit": "changes_of_a_commit"}


async def test_a_diff_comes_page_by_page(house: House) -> None:
    first, stored = await house.store(ADA, *(f"fact {n}" for n in range(7)))
    assert first is not None
    await change(house, stored[0].memory_id, "changed")
    await house.storing.delete(ADA, stored[1].memory_id, MAIN)
    await house.store(ADA, "new")
    found, token = [], ""
    while True:
        page, token, start, _ = await house.browsing.diff(
            ADA, "", At(commit_id=first.commit_id), At(), 2, token
        )
        assert start == first.commit_id
        found += page
        if not token:
            break
    told = [
        tuple(each.version.content.text if each else "" for each in sides) for _, *sides in found
    ]
    assert sorted(told) == [("", "new"), ("fact 0", "changed"), ("fact 1", "")]
    whole, _, before, _ = await house.browsing.diff(ADA, "", At(time=1), At(), 100, "")
    assert (len(whole), before) == (7, "")
