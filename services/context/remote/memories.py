"""The memory module."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

import grpc
from plexus.memory.v1 import feed_service_pb2 as feed_pb
from plexus.memory.v1 import memory_pb2, memory_service_pb2, version_pb2, version_service_pb2
from plexus.memory.v1.feed_service_pb2_grpc import FeedServiceStub
from plexus.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from plexus.memory.v1.version_service_pb2_grpc import VersionServiceStub

from services.context.domain.conditions import Both, Condition, equal
from services.context.domain.entries import MEMORY, Attribute, Entry, MemoryFacts, memory_entry
from services.context.domain.sources import Change, Kind, Source, Trust
from services.context.remote.answers import answers
from services.runtime import clock
from services.runtime.context import Principal, acting_as, current, mesh_principal, principal

_SPACES_SECONDS = 1.0
_MAX_CALLERS = 10_000
_MAX_SPACE_PAGES = 20
_PAGE = 100
_KINDS = {
    memory_pb2.MEMORY_KIND_EXPERIENCE: "experience",
    memory_pb2.MEMORY_KIND_KNOWLEDGE: "knowledge",
}


class RemoteMemories:
    """See Memories and Feed."""

    name = "memory"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._feed = FeedServiceStub(channel)
        self._versions = VersionServiceStub(channel)
        self._memories = MemoryServiceStub(channel)
        self._spaces: OrderedDict[Principal, tuple[float, Sequence[str]]] = OrderedDict()

    async def changes(
        self, after: int, limit: int, tenant_id: str = ""
    ) -> tuple[Sequence[Change], int]:
        """See Feed."""
        request = feed_pb.ListChangesRequest(after_position=after, limit=limit)
        with acting_as(mesh_principal(tenant_id)), answers():
            reply = await self._feed.ListChanges(request)
        return [_change(each) for each in reply.changes], reply.newest_position

    async def watch(self) -> AsyncIterator[int]:
        """See Feed."""
        with acting_as(mesh_principal()), answers():
            call = self._feed.WatchChanges(feed_pb.WatchChangesRequest())
        try:
            with answers():
                async for word in call:
                    yield word.newest_position
        finally:
            call.cancel()

    async def entries(self, change: Change) -> AsyncIterator[Sequence[Entry]]:
        """See Feed."""
        if change.entries:
            yield change.entries

    async def spaces(self) -> Sequence[str]:
        """See Memories; what was read a second ago is good enough to rank by."""
        who = principal()
        read, spaces = self._spaces.get(who, (float("-inf"), ()))
        if time.monotonic() - read > _SPACES_SECONDS:
            spaces = await self._read_spaces()
            self._spaces[who] = (time.monotonic(), spaces)
            self._spaces.move_to_end(who)
            if len(self._spaces) > _MAX_CALLERS:
                self._spaces.popitem(last=False)
        return spaces

    async def _read_spaces(self) -> Sequence[str]:
        found: list[str] = []
        token = ""
        for _ in range(_MAX_SPACE_PAGES):
            request = version_service_pb2.ListSpacesRequest(page_size=_PAGE, page_token=token)
            with answers():
                reply = await self._versions.ListSpaces(request)
            found += [each.space for each in reply.spaces]
            token = reply.next_page_token
            if not token:
                break
        return found

    async def memories(
        self, space: str, memory_ids: Sequence[str], at: int | None
    ) -> Sequence[Source]:
        """See Memories."""
        request = feed_pb.ReadMemoriesRequest(space=space, memory_ids=memory_ids)
        if at is not None:
            request.revision.CopyFrom(version_pb2.Revision(time=clock.to_timestamp(at)))
        with answers():
            reply = await self._feed.ReadMemories(request)
        return [_source(each) for each in reply.memories]

    async def space(self, space: str, limit: int) -> tuple[Sequence[Source], bool]:
        """See Memories."""
        found: list[Source] = []
        token = ""
        while len(found) < limit:
            size = min(_PAGE, limit - len(found))
            request = memory_service_pb2.ListMemoriesRequest(
                space=space, page_size=size, page_token=token
            )
            with answers():
                reply = await self._memories.ListMemories(request)
            found += map(_source, reply.memories)
            token = reply.next_page_token
            if not token:
                return found, False
        return found, True

    async def reinforce(self, memory_ids: Sequence[str]) -> None:
        """See Memories."""
        request = memory_service_pb2.ReinforceMemoriesRequest(memory_ids=memory_ids)
        with acting_as(principal(), current()), answers():
            await self._memories.ReinforceMemories(request)


def _change(change: feed_pb.MemoryChange) -> Change:
    if change.erased:
        parts: list[Condition] = [equal("kind", MEMORY), equal("memory_id", change.memory_id)]
        if change.version_id:
            parts.append(equal("version_id", change.version_id))
        return Change(change.position, change.tenant_id, forgets=Both(tuple(parts)))
    entry = memory_entry(_facts(change))
    return Change(change.position, change.tenant_id, (entry,))


def _facts(change: feed_pb.MemoryChange) -> MemoryFacts:
    memory = change.memory
    return MemoryFacts(
        tenant_id=change.tenant_id,
        memory_id=change.memory_id or memory.memory_id,
        version_id=change.version_id or memory.version_id,
        space=change.space or memory.space,
        text=memory.text,
        kind=_KINDS.get(memory.kind, "knowledge"),
        subject=memory.subject,
        person=memory.person,
        sensitivity=memory.sensitivity,
        since=clock.from_timestamp(change.since),
        until=clock.from_timestamp(change.until) if change.HasField("until") else None,
        valid_from=(
            clock.from_timestamp(memory.valid_from) if memory.HasField("valid_from") else None
        ),
        valid_until=(
            clock.from_timestamp(memory.valid_until) if memory.HasField("valid_until") else None
        ),
        time=clock.from_timestamp(memory.create_time),
        attributes={name: _value(value) for name, value in memory.attributes.items()},
    )


def _value(value: memory_pb2.AttributeValue) -> Attribute:
    match value.WhichOneof("value"):
        case "integer":
            return value.integer
        case "number":
            return value.number
        case "truth":
            return value.truth
        case "time":
            return clock_time(value)
        case _:
            return value.text


def clock_time(value: memory_pb2.AttributeValue) -> Attribute:
    """A moment with its offset."""
    from datetime import timezone

    return value.time.ToDatetime(timezone.utc)


def _source(memory: memory_pb2.Memory) -> Source:
    return Source(
        Kind.MEMORY,
        memory.text,
        title=memory.subject,
        memory_id=memory.memory_id,
        version_id=memory.version_id,
        space=memory.space,
        time=clock.from_timestamp(memory.create_time),
        trust=_trust(memory),
        confidential=memory.sensitivity == memory_pb2.SENSITIVITY_CONFIDENTIAL,
    )


def _trust(memory: memory_pb2.Memory) -> Trust:
    """As the person who asks, where nobody but that person can have written it."""
    user_id = principal().user_id
    own = memory.space == f"user/{user_id}"
    told = bool(memory.provenance) and all(
        each.WhichOneof("origin") == "person" and each.person == user_id
        for each in memory.provenance
    )
    return Trust.USER if user_id and own and told else Trust.OUTSIDE
