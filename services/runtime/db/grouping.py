"""Transactions that share a commit: what waits for its turn while the disk is busy goes together.

Transactions run one after another, each within a savepoint, on one connection; the commit comes
when nobody waits any more, or after a while. Nobody is told of success before it, nor of a failure
that rests on what others wrote. One caller alone pays nothing for it: nothing waits for company.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.runtime.errors import Unavailable

# A group that is older, or has more, is committed though others wait: they shall not wait for long.
_MOST_SECONDS = 0.02
_MOST_MEMBERS = 128


class _Group:
    """Transactions that are committed together."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.members = 0
        self.began = asyncio.get_running_loop().time()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Each member hears of it where it waits; one that was cancelled does not.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())


class GroupCommits:
    """One writer's transactions."""

    def __init__(self, engine: AsyncEngine, wait_seconds: float) -> None:
        """Prepare; nothing is opened yet.

        Args:
            engine: With one connection.
            wait_seconds: How long a transaction may wait for its turn.
        """
        self._engine = engine
        self._wait_seconds = wait_seconds
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._group: _Group | None = None
        self._committing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A unit of work, which is on the disk when the block has ended.

        Raises:
            Unavailable: Its turn did not come in time, or a transaction of the same group ended the
                whole group.
        """
        await self._take_turn()
        try:
            group = self._group or await self._begin()
            group.members += 1
        except BaseException:
            self._turn.release()
            raise
        try:
            # Past SQLAlchemy's own, which costs as much as the work within.
            _driver(group.connection).execute("SAVEPOINT member")
            yield group.connection
        except BaseException as error:
            await self._leave(group, error)
            raise
        await self._leave(group)

    async def _leave(self, group: _Group, failure: BaseException | None = None) -> None:
        """Give the turn on, and wait until the group is committed.

        Raises:
            Unavailable: It cannot be.
        """
        if not _alive(group.connection):
            await self._give_up(group, failure)
        else:
            driver = _driver(group.connection)
            if failure is not None:
                driver.execute("ROLLBACK TO member")
            driver.execute("RELEASE member")
            if self._is_complete(group):
                self._commit_soon(group)
            else:
                self._turn.release()
        await asyncio.shield(group.done)

    async def _take_turn(self) -> None:
        if not self._waiting and not self._turn.locked():
            await self._turn.acquire()
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turn.acquire()
        except BaseException as error:
            # A group may have been left open for this one, who does not come.
            if self._group is not None and self._waiting == 1 and not self._turn.locked():
                await self._turn.acquire()
                self._commit_soon(self._group)
            if isinstance(error, TimeoutError):
                raise Unavailable("The database is busy. Try again.", retry_after=1) from error
            raise
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._take_turn()
        self._turn.release()

    async def _begin(self) -> _Group:
        connection = await self._engine.connect()
        try:
            await connection.begin()
        except BaseException:
            await connection.close()
            raise
        self._group = _Group(connection)
        return self._group

    def _is_complete(self, group: _Group) -> bool:
        age = asyncio.get_running_loop().time() - group.began
        return not self._waiting or group.members >= _MOST_MEMBERS or age >= _MOST_SECONDS

    def _commit_soon(self, group: _Group) -> None:
        """Commit, whoever is cancelled meanwhile; the turn is given back then."""
        work = self._end(group, group.connection.commit)
        self._committing = asyncio.create_task(work, name="commit")

    async def _give_up(self, group: _Group, failure: BaseException | None) -> None:
        """The database rolled everything back: for want of room, say. All must know."""
        gone = Unavailable("The database cannot serve now. Try again.")
        gone.__cause__ = failure

        async def fail() -> None:
            raise gone

        if group.members == 1 and failure is not None:
            await self._end(group, None)
        else:
            await self._end(group, fail)

    async def _end(self, group: _Group, how: Callable[[], Any] | None) -> None:
        self._group = None
        try:
            if how is not None:
                await how()
            group.done.set_result(None)
        except Exception as error:  # noqa: BLE001 - every member raises it
            group.done.set_exception(error)
            # What could not be committed is still there, and would be in the next one's way.
            await group.connection.invalidate()
        finally:
            group.done.cancel()  # unless there is a result
            try:
                await group.connection.close()
            finally:
                self._turn.release()


def _alive(connection: AsyncConnection) -> bool:
    """Whether the transaction is still there."""
    if connection.closed or connection.invalidated:
        return False
    return bool(_driver(connection).in_transaction)


def _driver(connection: AsyncConnection) -> Any:
    inner: Any = connection.sync_connection
    return inner.connection.driver_connection
