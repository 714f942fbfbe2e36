"""Group commit: what many callers want stored at once goes into one transaction.

A caller's work is committed when its `submit` returns. Nothing waits for company: the writer takes
whatever is there when it comes free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.exc import IntegrityError

from services.runtime.db import Conflict, Connection, Database
from services.runtime.errors import (
    InvalidRequest,
    PlexusError,
    ResourceExhausted,
    Unavailable,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
_MAX_WAITING = 10_000
_MAX_GROUP = 1_000
_COLLISIONS = 2


class GroupWriter(Generic[Item, Result]):
    """Stores items of one kind, many in one transaction."""

    def __init__(
        self,
        database: Database,
        store: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | PlexusError]]],
        tenant: Callable[[Item], str],
    ) -> None:
        """Prepare to store.

        Args:
            database: Where.
            store: Stores some items, in order, in a transaction that it is given, and returns what
                became of each: a result, or the error that its caller shall get while the others
                are kept. What it raises undoes all; then each is tried alone.
            tenant: Whose an item is.
        """
        self._database = database
        self._store = store
        self._tenant = tenant
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue(
            _MAX_WAITING
        )
        self._stopped = False

    async def submit(self, item: Item) -> Result:
        """Store an item; returns when it is committed.

        Raises:
            ResourceExhausted: Too many are waiting, or the disk is full.
            Unavailable: The database cannot serve now.
            PlexusError: What the store made of the item.
        """
        if self._stopped:
            raise Unavailable("This process is stopping. Try again.")
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((item, done))
        except asyncio.QueueFull:
            raise ResourceExhausted(
                "Too much is waiting to be stored. Try again.",
                metadata={"limit": "waiting_writes"},
                retry_after=1,
            ) from None
        return await done

    async def run(self) -> None:
        """Store until cancelled; whoever waits then gets an error, for nothing of it is certain."""
        group: list[tuple[Item, asyncio.Future[Result]]] = []
        self._stopped = False
        try:
            while True:
                group = [await self._waiting.get()]
                while len(group) < _MAX_GROUP and not self._waiting.empty():
                    group.append(self._waiting.get_nowait())
                await self._commit(group)
        finally:
            self._stopped = True
            while not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            for _, done in group:
                if not done.done():
                    done.set_exception(Unavailable("This process is stopping. Try again."))

    async def _stored(self, items: Sequence[Item]) -> Sequence[Result | PlexusError]:
        """Store items in one transaction.

        Another replica may have stored the same in the moment between our look and our insert, or
        its transaction stood in the way of ours. Then the next look finds what it did.
        """
        for _ in range(_COLLISIONS):
            with contextlib.suppress(IntegrityError, Conflict):
                return await self._store_once(items)
        return await self._store_once(items)

    async def _store_once(self, items: Sequence[Item]) -> Sequence[Result | PlexusError]:
        async with self._database.transaction(map(self._tenant, items)) as connection:
            return await self._store(connection, items)

    async def _commit(self, group: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._stored([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - goes to everyone who waits
            of_an_item = isinstance(error, InvalidRequest) or not isinstance(error, PlexusError)
            if len(group) > 1 and of_an_item:
                # One bad item must not take the others with it. A store that is away is no item's
                # fault: then trying each would only make everyone wait for its turn.
                for each in group:
                    if not each[1].done():
                        await self._commit([each])
                return
            for _, done in group:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), result in zip(group, results, strict=True):
            if done.done():
                continue
            if isinstance(result, PlexusError):
                done.set_exception(result)
            else:
                done.set_result(result)
