"""What is known, through the gateway: stored, found, branched, merged, brought back, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from plexus.memory.v1 import branch_service_pb2 as branch_pb
from plexus.memory.v1 import care_service_pb2 as care_pb
from plexus.memory.v1 import memory_pb2, version_pb2
from plexus.memory.v1 import memory_service_pb2 as memory_pb
from plexus.memory.v1 import version_service_pb2 as version_pb

from services.runtime.errors import NotFound
from tests.e2e.callers import Caller
from tests.e2e.conftest import make_caller, sign_up
from tests.e2e.mesh import Mesh

MEMORY = "memory.v1.MemoryService"
BRANCH = "memory.v1.BranchService"
VERSION = "memory.v1.VersionService"
CARE = "memory.v1.CareService"


@pytest.fixture(params=["rest", "grpc"])
async def user(request: pytest.FixtureRequest, mesh: Mesh) -> AsyncIterator[Caller]:
    """Somebody new."""
    found = make_caller(request.param, mesh)
    await sign_up(found)
    yield found
    await found.close()


async def store(user: Caller, text: str, **more: Any) -> memory_pb.StoreMemoriesResponse:
    record = memory_pb2.NewMemory(text=text, subject="invoice 4711")
    return await user.unary(
        f"{MEMORY}/StoreMemories",
        memory_pb.StoreMemoriesRequest(records=[record], **more),
        memory_pb.StoreMemoriesResponse,
    )


async def texts(user: Caller) -> list[str]:
    found = await user.unary(
        f"{MEMORY}/ListMemories",
        memory_pb.ListMemoriesRequest(page_size=100),
        memory_pb.ListMemoriesResponse,
    )
    return [each.text for each in found.memories]


async def test_what_is_known_has_a_history(user: Caller) -> None:
    first = await store(user, "The total of the invoice is 40 euros.", idempotency_key="one")
    assert (
        await store(user, "The total of the invoice is 40 euros.", idempotency_key="one") == first
    )
    same = await store(user, "the total of the invoice is 40 euros")
    assert same.results[0].outcome == memory_pb2.STORE_OUTCOME_UNCHANGED
    await user.unary(
        f"{BRANCH}/CreateBranch",
        branch_pb.CreateBranchRequest(branch="what-if"),
        branch_pb.CreateBranchResponse,
    )
    other = await store(user, "The total of the invoice is 50 euros.", branch="what-if")
    assert other.results[0].contradicts == [first.results[0].memory_id]
    assert len(await texts(user)) == 1
    merged = await user.unary(
        f"{BRANCH}/MergeBranch",
        branch_pb.MergeBranchRequest(branch="what-if"),
        branch_pb.MergeBranchResponse,
    )
    assert (merged.changed, len(await texts(user))) == (1, 2)
    found = await user.unary(
        f"{MEMORY}/RetrieveMemories",
        memory_pb.RetrieveMemoriesRequest(query="invoice total"),
        memory_pb.RetrieveMemoriesResponse,
    )
    assert {each.memory.text for each in found.memories} == set(await texts(user))
    await user.unary(
        f"{BRANCH}/RollbackBranch",
        branch_pb.RollbackBranchRequest(
            branch="main", revision=version_pb2.Revision(commit_id=first.commit.commit_id)
        ),
        branch_pb.RollbackBranchResponse,
    )
    assert await texts(user) == ["The total of the invoice is 40 euros."]
    commits = await user.unary(
        f"{VERSION}/ListCommits", version_pb.ListCommitsRequest(), version_pb.ListCommitsResponse
    )
    assert [(each.added, each.removed) for each in commits.commits] == [(0, 1), (1, 0), (1, 0)]


async def test_a_person_decides_and_is_forgotten(user: Caller) -> None:
    proposed = await store(user, "Wants tea.", propose=True)
    decided = await user.unary(
        f"{CARE}/DecideProposal",
        care_pb.DecideProposalRequest(proposal_id=proposed.results[0].proposal_id, accept=True),
        care_pb.DecideProposalResponse,
    )
    assert decided.commit.added == 1
    assert await texts(user) == ["Wants tea."]
    asked = await user.unary(
        f"{CARE}/ErasePerson",
        care_pb.ErasePersonRequest(person=decided.proposal.memory.person),
        care_pb.ErasePersonResponse,
    )
    request = care_pb.GetErasureRequest(erasure_id=asked.erasure.erasure_id)
    async with asyncio.timeout(20):
        while True:
            found = await user.unary(f"{CARE}/GetErasure", request, care_pb.GetErasureResponse)
            if found.erasure.state == care_pb.ERASURE_STATE_VERIFIED:
                break
            await asyncio.sleep(0.1)
    assert found.erasure.erased_versions == 1
    with pytest.raises(NotFound):
        await texts(user)
