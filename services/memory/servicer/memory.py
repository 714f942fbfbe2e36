"""MemoryService over gRPC."""

from __future__ import annotations

from dataclasses import replace

from plexus.memory.v1 import memory_service_pb2 as pb
from plexus.memory.v1.memory_service_pb2_grpc import MemoryServiceServicer
from plexus.memory.v1.version_pb2 import Commit as CommitMessage

from services.memory import convert
from services.memory.domain.values import MAIN, Commit, Content
from services.memory.service.browsing import Browsing
from services.memory.service.retrieving import Retrieving
from services.memory.service.storing import Store, Storing
from services.runtime import clock
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable


class MemoryServicer(MemoryServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, storing: Storing, browsing: Browsing, retrieving: Retrieving) -> None:
        self._storing = storing
        self._browsing = browsing
        self._retrieving = retrieving

    async def StoreMemories(
        self, request: pb.StoreMemoriesRequest, context: Servicing
    ) -> pb.StoreMemoriesResponse:
        """See the contract."""
        who, now = principal(), clock.now()
        asked = Store(
            space=request.space,
            records=[
                convert.from_new(each, f"records[{n}].", who.user_id, now)
                for n, each in enumerate(request.records)
            ],
            branch=request.branch or MAIN,
            expected_head=request.expected_head,
            message=request.message,
            propose=request.propose,
        )
        call = Repeatable.of(request, request.idempotency_key)
        commit, stored = await self._storing.store(who, asked, call)
        return pb.StoreMemoriesResponse(
            commit=_maybe(commit), results=map(convert.to_stored, stored)
        )

    async def RetrieveMemories(
        self, request: pb.RetrieveMemoriesRequest, context: Servicing
    ) -> pb.RetrieveMemoriesResponse:
        """See the contract."""
        answer = await self._retrieving.retrieve(
            principal(),
            request.space,
            request.query,
            convert.from_filter(request.filter),
            convert.from_revision(request.revision),
            request.page_size,
            request.page_token,
        )
        return pb.RetrieveMemoriesResponse(
            memories=[
                pb.RetrievedMemory(
                    memory=convert.to_memory(each.memory),
                    score=each.score,
                    lexical=each.lexical,
                    semantic=each.semantic,
                )
                for each in answer.found
            ],
            next_page_token=answer.token,
            commit_id=answer.commit_id,
            degraded=answer.degraded,
        )

    async def ListMemories(
        self, request: pb.ListMemoriesRequest, context: Servicing
    ) -> pb.ListMemoriesResponse:
        """See the contract."""
        found, token, commit_id = await self._browsing.memories(
            principal(),
            request.space,
            convert.from_revision(request.revision),
            request.page_size,
            request.page_token,
        )
        return pb.ListMemoriesResponse(
            memories=map(convert.to_memory, found), next_page_token=token, commit_id=commit_id
        )

    async def GetMemory(
        self, request: pb.GetMemoryRequest, context: Servicing
    ) -> pb.GetMemoryResponse:
        """See the contract."""
        at = convert.from_revision(request.revision)
        found = await self._browsing.memory(principal(), request.memory_id, at)
        return pb.GetMemoryResponse(memory=convert.to_memory(found))

    async def UpdateMemory(
        self, request: pb.UpdateMemoryRequest, context: Servicing
    ) -> pb.UpdateMemoryResponse:
        """See the contract."""
        set_attributes = convert.from_attributes(request.set_attributes, "set_attributes")
        values = {
            name: getattr(request, name)
            for name in ("text", "subject", "confidence")
            if request.HasField(name)
        }
        values |= {
            name: convert.moment(getattr(request, name), name)
            for name in ("valid_from", "valid_until")
            if request.HasField(name)
        }

        def change(content: Content) -> Content:
            attributes = {
                name: value
                for name, value in content.attributes.items()
                if name not in request.remove_attributes
            }
            return replace(content, attributes={**attributes, **set_attributes}, **values)

        memory, commit = await self._storing.update(
            principal(),
            request.memory_id,
            request.branch or MAIN,
            request.version_id,
            request.message,
            change,
        )
        return pb.UpdateMemoryResponse(memory=convert.to_memory(memory), commit=_maybe(commit))

    async def DeleteMemory(
        self, request: pb.DeleteMemoryRequest, context: Servicing
    ) -> pb.DeleteMemoryResponse:
        """See the contract."""
        branch = request.branch or MAIN
        commit = await self._storing.delete(principal(), request.memory_id, branch)
        return pb.DeleteMemoryResponse(commit=convert.to_commit(commit))

    async def ListMemoryVersions(
        self, request: pb.ListMemoryVersionsRequest, context: Servicing
    ) -> pb.ListMemoryVersionsResponse:
        """See the contract."""
        found, token = await self._browsing.versions(
            principal(),
            request.memory_id,
            request.branch,
            request.page_size,
            request.page_token,
        )
        return pb.ListMemoryVersionsResponse(
            versions=[
                pb.MemoryVersion(
                    memory=None if memory is None else convert.to_memory(memory),
                    commit=convert.to_commit(commit),
                )
                for memory, commit in found
            ],
            next_page_token=token,
        )

    async def ReinforceMemories(
        self, request: pb.ReinforceMemoriesRequest, context: Servicing
    ) -> pb.ReinforceMemoriesResponse:
        """See the contract."""
        await self._storing.reinforce(principal(), request.memory_ids)
        return pb.ReinforceMemoriesResponse()


def _maybe(commit: Commit | None) -> CommitMessage | None:
    return None if commit is None else convert.to_commit(commit)
