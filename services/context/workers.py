"""What context does by itself: follows the feeds, and makes indexes anew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.context.ports import Feed
from services.context.service.indexing import Indexer
from services.context.service.library import Library
from services.runtime.tasks import Tasks

_LOOK_SECONDS = 5.0
_REBUILD_LOOK_SECONDS = 1.0


class Follower:
    """Keeps the index up to date with one feed. Each has its own, so that none waits for another."""

    def __init__(self, library: Library, feed: Feed) -> None:
        self._library = library
        self._feed = feed
        self._indexer = Indexer(library, feed)
        self._news = asyncio.Event()

    def start(self, tasks: Tasks) -> None:
        """Follow until the process ends."""
        tasks.keep_running(f"context.{self._feed.name}", self._follow)
        tasks.keep_running(f"context.{self._feed.name}.news", self._watch)

    async def _follow(self) -> None:
        await self._library.prepare()
        while True:
            self._news.clear()
            while await self._indexer.take(await self._library.serving()):
                pass
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                # Whether or not anybody said so, there may be more.
                continue

    async def _watch(self) -> None:
        async for _ in self._feed.watch():
            self._news.set()


class Rebuilder:
    """Makes a shelf that was begun whole, and lets it serve."""

    def __init__(self, library: Library, feeds: Sequence[Feed]) -> None:
        self._library = library
        self._indexers = [Indexer(library, feed) for feed in feeds]
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Look now."""
        self._begun.set()

    async def run(self) -> None:
        """Go on with whatever is begun, also by a process before this one."""
        while True:
            self._begun.clear()
            shelf = await self._library.building()
            if shelf:
                await self._make(shelf)
                continue
            try:
                async with asyncio.timeout(_REBUILD_LOOK_SECONDS):
                    await self._begun.wait()
            except TimeoutError:
                continue

    async def _make(self, shelf: str) -> None:
        more = True
        while more:
            taken = [await indexer.take(shelf) for indexer in self._indexers]
            more = any(taken)
        await self._library.swap(shelf)
