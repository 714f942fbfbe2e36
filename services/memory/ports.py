"""What memory needs of other modules, and how it gets it: over the contracts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import grpc
from plexus.context.v1 import search_service_pb2 as search_pb
from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub

from services.runtime import clock
from services.runtime.status import remote_errors


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that an index found, in the version that it knew, and by what."""

    memory_id: str
    version_id: str
    lexical: bool
    semantic: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A page of what an index found, the best first.

    Attributes:
        hits: What was found.
        stale: Whether something that was stored before may be missing.
        token: For the next page; empty on the last.
    """

    hits: tuple[Hit, ...]
    stale: bool = False
    token: str = ""


class Search(Protocol):
    """An index of memories, for the user that the current call acts for."""

    async def memories(
        self, query: str, space: str, as_of: int | None, size: int, token: str
    ) -> Found:
        """A page of the memories of a space that answer a query, as they were at a moment."""
        ...


class RemoteSearch:
    """The context module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = SearchServiceStub(channel)

    async def memories(
        self, query: str, space: str, as_of: int | None, size: int, token: str
    ) -> Found:
        """See Search."""
        request = search_pb.SearchRequest(
            query=query,
            filter='kind = "memory"',
            spaces=[space],
            page_size=size,
            page_token=token,
            as_of=None if as_of is None else clock.to_timestamp(as_of),
        )
        with remote_errors():
            reply = await self._stub.Search(request)
        hits = tuple(
            Hit(
                memory_id=hit.source.memory_id,
                version_id=hit.source.version_id,
                lexical=_ranked(hit, search_pb.SIGNAL_LEXICAL),
                semantic=_ranked(hit, search_pb.SIGNAL_SEMANTIC),
            )
            for hit in reply.hits
        )
        return Found(hits, reply.stale, reply.next_page_token)


def _ranked(hit: search_pb.SearchHit, signal: search_pb.Signal.ValueType) -> bool:
    return any(rank.signal == signal for rank in hit.ranks)
