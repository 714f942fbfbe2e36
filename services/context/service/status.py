"""How far the index is, and how it is made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.context.domain.conditions import Both, Plain, of_tenant
from services.context.ports import Feed
from services.context.service.library import Library, space_of


def _with_vector(tenant_id: str, model: str) -> Plain:
    everything = of_tenant(tenant_id, Both(()))
    return {"must": [everything, {"has_vector": space_of(model)}]}


@dataclass(frozen=True, slots=True)
class Status:
    """See GetIndexResponse."""

    entries: int
    behind: int
    rebuild_percent: int | None
    embedding_models: Sequence[str]
    backend: str
    create_time: int


class StatusService:
    """Tells how the index is, and begins rebuilds."""

    def __init__(self, library: Library, feeds: Sequence[Feed], begin: Callable[[], None]) -> None:
        """Prepare one.

        Args:
            library: The index's shelves.
            feeds: What they are derived from.
            begin: Wakes whoever makes a shelf that was begun.
        """
        self._library = library
        self._feeds = feeds
        self._begin = begin

    async def status(self, tenant_id: str) -> Status:
        """How the index is.

        Raises:
            Unavailable: It, or a feed, does not answer.
        """
        self._library.forget()
        shelf = await self._library.serving()
        newest = await self._newest()
        positions = await self._positions(shelf)
        building = await self._library.building()
        return Status(
            entries=await self._library.backend.count(shelf, of_tenant(tenant_id, Both(()))),
            behind=sum(max(0, end - at) for end, at in zip(newest, positions, strict=True)),
            rebuild_percent=await self._percent(building, newest) if building else None,
            embedding_models=[
                model
                for model in await self._library.models(shelf)
                if await self._library.backend.count(shelf, _with_vector(tenant_id, model))
            ],
            backend=self._library.backend.name,
            create_time=await self._library.create_time(shelf),
        )

    async def rebuild(self) -> int:
        """Begin to make the index anew, or go on; how much is done, 0 to 100.

        Raises:
            Unavailable: It, or a feed, does not answer.
        """
        building = await self._library.build()
        self._begin()
        return await self._percent(building, await self._newest())

    async def _newest(self) -> list[int]:
        pages = await asyncio.gather(*(feed.changes(2**53 - 1, 1) for feed in self._feeds))
        return [newest for _, newest in pages]

    async def _positions(self, shelf: str) -> list[int]:
        found = await self._library.positions(shelf, [feed.name for feed in self._feeds])
        return [found[feed.name] for feed in self._feeds]

    async def _percent(self, shelf: str, newest: Sequence[int]) -> int:
        done = await self._positions(shelf)
        every = sum(newest)
        return min(100, 100 * sum(done) // every) if every else 100
