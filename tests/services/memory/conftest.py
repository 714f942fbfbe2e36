"""Memory as it is served, on each database, and short words for its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from plexus.memory.v1 import branch_service_pb2 as branch_pb
from plexus.memory.v1 import memory_pb2, version_pb2
from plexus.memory.v1 import memory_service_pb2 as memory
from plexus.memory.v1 import version_service_pb2 as version_pb
from plexus.memory.v1.branch_service_pb2_grpc import BranchServiceStub
from plexus.memory.v1.care_service_pb2_grpc import CareServiceStub
from plexus.memory.v1.feed_service_pb2_grpc import FeedServiceStub
from plexus.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from plexus.memory.v1.version_service_pb2_grpc import VersionServiceStub
from plexus.options.v1.options_pb2 import Role

from services.runtime.clients import Clients
from services.runtime.context import Principal, mesh_principal
from services.runtime.errors import PlexusError
from services.runtime.status import remote_errors
from tests.databases import KINDS, Databases
from tests.services.memory.house import House, built
from tests.support import served, settings_in

TENANT = "ten_1"
SHARED = "shared/lab"


class Calls:
    """Somebody who calls memory."""

    def __init__(self, clients: Clients) -> None:
        channel = clients.channel("memory")
        self.memory = MemoryServiceStub(channel)
        self.version = VersionServiceStub(channel)
        self.branch = BranchServiceStub(channel)
        self.care = CareServiceStub(channel)
        self.feed = FeedServiceStub(channel)

    async def store(self, *texts: str, **more: Any) -> memory.StoreMemoriesResponse:
        """Store texts, in one commit, each with the same `record` values."""
        record = more.pop("record", {})
        records = [memory_pb2.NewMemory(text=text, **record) for text in texts]
        with remote_errors():
            return await self.memory.StoreMemories(
                memory.StoreMemoriesRequest(records=records, **more)
            )

    async def texts(self, space: str = "", **at: Any) -> list[str]:
        """What a space holds, in the order of the alphabet."""
        found, token = [], ""
        while True:
            with remote_errors():
                page = await self.memory.ListMemories(
                    memory.ListMemoriesRequest(
                        space=space,
                        revision=version_pb2.Revision(**at),
                        page_size=3,
                        page_token=token,
                    )
                )
            found += [each.text for each in page.memories]
            token = page.next_page_token
            if not token:
                return sorted(found)

    async def get(self, memory_id: str, **at: Any) -> memory_pb2.Memory:
        """One memory."""
        revision = version_pb2.Revision(**at)
        with remote_errors():
            reply = await self.memory.GetMemory(
                memory.GetMemoryRequest(memory_id=memory_id, revision=revision)
            )
        return reply.memory

    async def update(self, memory_id: str, **values: Any) -> memory.UpdateMemoryResponse:
        """Change a memory."""
        with remote_errors():
            return await self.memory.UpdateMemory(
                memory.UpdateMemoryRequest(memory_id=memory_id, **values)
            )

    async def delete(self, memory_id: str, branch: str = "") -> version_pb2.Commit:
        """Remove a memory."""
        with remote_errors():
            reply = await self.memory.DeleteMemory(
                memory.DeleteMemoryRequest(memory_id=memory_id, branch=branch)
            )
        return reply.commit

    async def retrieve(self, query: str = "", **values: Any) -> memory.RetrieveMemoriesResponse:
        """What answers a query."""
        with remote_errors():
            return await self.memory.RetrieveMemories(
                memory.RetrieveMemoriesRequest(query=query, **values)
            )

    async def make_branch(self, name: str, space: str = "", **at: Any) -> version_pb2.Branch:
        """A new branch."""
        revision = version_pb2.Revision(**at)
        with remote_errors():
            reply = await self.branch.CreateBranch(
                branch_pb.CreateBranchRequest(space=space, branch=name, revision=revision)
            )
        return reply.branch

    async def merge(self, name: str, space: str = "", **more: Any) -> branch_pb.MergeBranchResponse:
        """Merge a branch into main."""
        with remote_errors():
            return await self.branch.MergeBranch(
                branch_pb.MergeBranchRequest(space=space, branch=name, **more)
            )

    async def roll_back(self, space: str = "", branch: str = "main", **at: Any) -> Any:
        """Bring a branch back."""
        revision = version_pb2.Revision(**at)
        with remote_errors():
            return await self.branch.RollbackBranch(
                branch_pb.RollbackBranchRequest(space=space, branch=branch, revision=revision)
            )

    async def update_space(self, space: str = "", **values: Any) -> version_pb2.Space:
        """Change what a space keeps."""
        with remote_errors():
            reply = await self.version.UpdateSpace(
                version_pb.UpdateSpaceRequest(space=space, **values)
            )
        return reply.space


def person(user: str = "usr_1", tenant: str = TENANT, role: int = Role.ROLE_MEMBER) -> Principal:
    """Somebody with a credential of their own."""
    return Principal(tenant, user, "tok_1", frozenset({role}))


def agent(user: str = "usr_1", tenant: str = TENANT) -> Principal:
    """A run of an agent, which answers somebody."""
    return mesh_principal(tenant, user)


@pytest.fixture(params=KINDS)
async def calls(
    request: pytest.FixtureRequest, tmp_path: Path, databases: Databases
) -> AsyncIterator[Calls]:
    """Memory, served; nobody calls yet. Of other modules none is there."""
    settings = settings_in(tmp_path, **await databases.settings(request.param))
    async with served(settings, ["memory"]) as found:
        yield Calls(found.clients)


@pytest.fixture(params=KINDS)
async def house(request: pytest.FixtureRequest, databases: Databases) -> House:
    """Memory's use cases, on an empty database."""
    return await built(await databases.make(request.param))


@contextmanager
def refused(reason: str) -> Iterator[Any]:
    """What is in the block is refused for this reason."""
    with pytest.raises(PlexusError) as caught:
        yield caught
    assert caught.value.reason == reason
