"""What context does by itself: follows the feeds, and makes indexes anew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from services.context.leading import Leads
from services.context.ports import Feed
from services.context.service.indexing import Indexer
from services.context.service.library import Library
from services.runtime.tasks import Tasks

_LOOK_SECONDS = 5.0
_REBUILD_LOOK_SECONDS = 1.0
# How long the shelf is kept that served before: longer than it is believed to serve, and a search.
_GRACE_SECONDS = 30.0


class Taker(Protocol):
    """Takes in changes of a feed."""

    async def take(self, shelf: str) -> bool:
        """Take in some; False where there are none left."""
        ...


class Follower:
    """Keeps the index up to date with one feed; each has its own, and none waits for another."""

    def __init__(self, library: Library, feed: Feed, taker: Taker, leads: Leads) -> None:
        """Prepare one.

        Args:
            library: The index's shelves.
            feed: Whom to listen to.
            taker: Who takes its changes in.
            leads: Whether this process is the one that does.
        """
        self._library = library
        self._feed = feed
        self._taker = taker
        self._leads = leads
        self._news = asyncio.Event()

    def start(self, tasks: Tasks, name: str) -> None:
        """Follow until the process ends."""
        tasks.keep_running(name, self._follow)
        tasks.keep_running(f"{name}.news", self._watch)

    async def _follow(self) -> None:
        await self._leads.wait()
        await self._library.prepare()
        while True:
            self._news.clear()
            await self._leads.wait()
            while await self._taker.take(await self._library.serving()):
                await self._leads.wait()
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

    def __init__(self, library: Library, feeds: Sequence[Feed], leads: Leads) -> None:
        self._library = library
        self._leads = leads
        self._indexers = [Indexer(library, feed) for feed in feeds]
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Look now."""
        self._begun.set()

    async def run(self) -> None:
        """Go on with whatever is begun, also by a process before this one."""
        await self._leads.wait()
        await self._library.tidy()
        while True:
            self._begun.clear()
            await self._leads.wait()
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
            await self._leads.wait()
            taken = [await indexer.take(shelf) for indexer in self._indexers]
            more = any(taken)
        await self._library.swap(shelf)
        # Whoever asked which one serves before that has had its answer by then.
        await asyncio.sleep(_GRACE_SECONDS)
        await self._library.tidy()
