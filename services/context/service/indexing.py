"""From the feeds of memory and ingest into the index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.context.domain.conditions import of_tenant
from services.context.domain.entries import Entry
from services.context.domain.sources import Change
from services.context.index.backend import Point
from services.context.ports import Feed, Superseded
from services.context.service.library import Library
from services.context.text import bm25
from services.runtime import log
from services.runtime.errors import Internal

_logger = log.get(__name__)
_CHANGES = 200
# So many at once: whoever searches meanwhile waits for no more than these.
_BATCH = 32


class Indexer:
    """Takes in the changes of one feed. Taking one in again changes nothing."""

    def __init__(self, library: Library, feed: Feed) -> None:
        self._library = library
        self._feed = feed

    async def take(self, shelf: str) -> bool:
        """Take in some changes; False where there are none left.

        Raises:
            PlexusError: The feed or the index did not answer; what is marked is in.
        """
        name = self._feed.name
        after = (await self._library.positions(shelf, [name]))[name]
        changes, newest = await self._feed.changes(after, _CHANGES)
        waiting: list[Entry] = []
        for change in changes:
            if change.document is None and change.forgets is None:
                waiting += change.entries
                if len(waiting) < _BATCH:
                    continue
            await self._put(shelf, waiting)
            waiting = []
            await self._apply(shelf, change)
            await self._library.mark(shelf, name, change.position)
        await self._put(shelf, waiting)
        if changes:
            await self._library.mark(shelf, name, changes[-1].position)
        elif newest > after:
            # What was there is gone, or was not for anybody: nothing is missing.
            await self._library.mark(shelf, name, newest)
        return bool(changes)

    async def _apply(self, shelf: str, change: Change) -> None:
        """Take in a change that replaces or removes: first what is new, then away with the old."""
        if change.document is not None:
            try:
                async for entries in self._feed.entries(change):
                    await self._put(shelf, entries)
            except Superseded:
                # What it would forget may be newer than it.
                return
        if change.forgets is not None:
            condition = of_tenant(change.tenant_id, change.forgets)
            await self._library.backend.delete(shelf, condition)

    async def _put(self, shelf: str, entries: Sequence[Entry]) -> None:
        for at in range(0, len(entries), _BATCH):
            points = await asyncio.to_thread(_points, entries[at : at + _BATCH])
            try:
                await self._library.backend.upsert(shelf, points)
            except Internal:
                await self._put_each(shelf, points)

    async def _put_each(self, shelf: str, points: Sequence[Point]) -> None:
        """One by one, so that what the index refuses keeps nothing else out."""
        for point in points:
            try:
                await self._library.backend.upsert(shelf, [point])
            except Internal:
                _logger.error("entry_refused", entry=point.entry_id, feed=self._feed.name)


def _points(entries: Sequence[Entry]) -> list[Point]:
    return [Point(each.entry_id, each.payload, bm25.document(each.text)) for each in entries]
