"""Who may touch a space, what waits for a person, and that nobody sees what is not theirs."""

from __future__ import annotations

import asyncio

import pytest
from plexus.options.v1.options_pb2 import Role

from services.memory.domain.values import MAIN, At, Outcome, Policy, ProposalState, Space
from services.memory.tables import branches
from services.runtime.context import Principal
from services.runtime.errors import NotFound, PermissionDenied
from tests.services.memory.conftest import SHARED, agent, person, refused
from tests.services.memory.house import House

ADA, BOB = person("usr_a"), person("usr_b")
ADMIN = person("usr_admin", role=Role.ROLE_ADMIN)
STRANGER = person("usr_a", tenant="ten_2")


async def guard(house: House, *users: str) -> Space:
    return await house.browsing.update_space(ADMIN, SHARED, None, users, "")


async def test_a_users_space_is_that_users_alone(house: House) -> None:
    _, (stored,) = await house.store(ADA, "a secret")
    for who in (BOB, ADMIN, STRANGER):
        with refused("NOT_FOUND"):
            await house.texts(who, "user/usr_a")
        with refused("NOT_FOUND"):
            await house.store(who, "x", space="user/usr_a" if who is not STRANGER else "user/x")
        with pytest.raises(NotFound) as there:
            await house.browsing.memory(who, stored.memory_id, At())
        with pytest.raises(NotFound) as absent:
            await house.browsing.memory(who, "mem_" + "0" * 26, At())
        assert there.value.metadata == absent.value.metadata
        with refused("NOT_FOUND"):
            await house.storing.delete(who, stored.memory_id, MAIN)
        assert (await house.browsing.spaces(who, 0, ""))[0] == []
    assert await house.feed(BOB) == []
    assert len(await house.feed(ADA)) == 1


async def test_a_shared_space_is_everyones_or_its_members(house: House) -> None:
    _, (stored,) = await house.store(ADA, "known to all", space=SHARED)
    assert await house.texts(BOB, SHARED) == ["known to all"]
    with refused("NOT_FOUND"):
        await house.texts(STRANGER, SHARED)
    assert (await guard(house, "usr_a", "usr_admin")).members == ("usr_a", "usr_admin")
    assert await house.texts(ADA, SHARED) == ["known to all"]
    for refuse in (
        house.texts(BOB, SHARED),
        house.store(BOB, "x", space=SHARED),
        house.browsing.memory(BOB, stored.memory_id, At()),
        house.branching.names(BOB, branches, SHARED, 0, ""),
        house.browsing.commits(BOB, SHARED, At(), 0, ""),
        house.caring.proposals(BOB, SHARED, ProposalState.WAITING, 0, ""),
    ):
        with refused("NOT_FOUND"):
            await refuse
    assert await house.feed(BOB) == []
    assert (await house.browsing.spaces(BOB, 0, ""))[0] == []
    # An index reads for nobody in particular.
    assert await house.texts(agent(user=""), SHARED) == ["known to all"]
    assert (await guard(house)).members == ()
    assert await house.texts(BOB, SHARED) == ["known to all"]


async def test_who_may_change_what_a_space_keeps(house: House) -> None:
    policy = Policy(keep_versions=3_600_000_000, review=True, merge_likeness=0.5)
    with pytest.raises(PermissionDenied):
        await house.browsing.update_space(ADA, SHARED, policy, None, "")
    changed = await house.browsing.update_space(ADMIN, SHARED, policy, None, "")
    assert changed.policy.keep_versions == 3_600_000_000
    with refused("STALE_ETAG"):
        await house.browsing.update_space(ADMIN, SHARED, Policy(), None, "0")
    again = await house.browsing.update_space(ADMIN, SHARED, None, None, str(changed.etag))
    assert again.policy == changed.policy
    own = await house.browsing.update_space(ADA, "", policy, None, "")
    assert own.space == "user/usr_a"
    with refused("INVALID_REQUEST"):
        await house.browsing.update_space(ADA, "", None, ("usr_b",), "")


async def propose(house: House, text: str, who: Principal | None = None) -> str:
    made, (stored,) = await house.store(who or agent("usr_a"), text, space=SHARED)
    assert (made, stored.outcome) == (None, Outcome.PROPOSED)
    return stored.proposal_id


async def test_where_there_is_review_an_agent_proposes_and_a_person_decides(
    house: House,
) -> None:
    await house.browsing.update_space(ADMIN, SHARED, Policy(review=True), None, "")
    first, second = await propose(house, "one"), await propose(house, "two")
    assert await house.texts(ADA, SHARED) == []
    waiting, _ = await house.caring.proposals(ADA, "", ProposalState.WAITING, 0, "")
    assert [each.proposal_id for each in waiting] == [first, second]
    with pytest.raises(PermissionDenied):
        await house.caring.decide(agent("usr_a"), first, accept=True)
    for who in (STRANGER, person("usr_x", tenant="ten_3")):
        with refused("NOT_FOUND"):
            await house.caring.decide(who, first, accept=True)
    decided = await asyncio.gather(
        *(house.caring.decide(ADA, first, accept=True) for _ in range(4))
    )
    assert sum(made is not None for _, made in decided) == 1
    assert await house.texts(ADA, SHARED) == ["one"]
    with refused("DECIDED"):
        await house.caring.decide(ADA, first, accept=False)
    rejected, made = await house.caring.decide(BOB, second, accept=False)
    assert (rejected.state, rejected.decided_by, made) == (ProposalState.REJECTED, "usr_b", None)
    _, (stored,) = await house.store(ADA, "by a person", space=SHARED)
    assert stored.outcome == Outcome.ADDED
    # What would go round the review is refused.
    with pytest.raises(PermissionDenied):
        await house.storing.delete(agent("usr_a"), stored.memory_id, MAIN)
    await house.branching.add(agent("usr_a"), branches, SHARED, "draft", At())
    await house.store(agent("usr_a"), "on a branch", space=SHARED, branch="draft")
    with pytest.raises(PermissionDenied):
        await house.merge(agent("usr_a"), "draft", SHARED)
    assert (await house.merge(ADA, "draft", SHARED))[2] == 1


async def test_a_proposal_may_be_a_change_and_may_come_too_late(house: House) -> None:
    _, (stored,) = await house.store(ADA, "one", space=SHARED)
    _, (change,) = await house.store(
        ADA, "two", space=SHARED, propose=True, memory_id=stored.memory_id
    )
    _, (late,) = await house.store(
        ADA, "three", space=SHARED, propose=True, memory_id=stored.memory_id
    )
    await house.caring.decide(BOB, change.proposal_id, accept=True)
    assert await house.texts(ADA, SHARED) == ["two"]
    await house.storing.delete(ADA, stored.memory_id, MAIN)
    with refused("NOT_FOUND"):
        await house.caring.decide(BOB, late.proposal_id, accept=True)


async def test_an_agent_without_a_user_names_its_space(house: House) -> None:
    with refused("INVALID_REQUEST"):
        await house.store(agent(user=""), "x")
    await house.store(agent(user=""), "x", space="agent/agt_1")
    assert await house.texts(ADA, "agent/agt_1") == ["x"]


async def test_a_new_likeness_holds_for_what_comes(house: House) -> None:
    near = "the large freezer behind the green door of the second floor keeps all of our samples"
    await house.browsing.update_space(ADMIN, SHARED, Policy(merge_likeness=0.5), None, "")
    await house.store(ADA, near, space=SHARED)
    _, (stored,) = await house.store(ADA, near.replace("large", "big"), space=SHARED)
    assert stored.outcome == Outcome.UNCHANGED
    await house.browsing.update_space(ADMIN, SHARED, Policy(merge_likeness=1.0), None, "")
    _, (stored,) = await house.store(ADA, near.replace("large", "big"), space=SHARED)
    assert stored.outcome == Outcome.ADDED
