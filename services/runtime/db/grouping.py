"""Transactions that share a commit: what waits for its turn while the disk is busy goes together.

Transactions run one after another, each within a savepoint, on one connection; the commit comes
when nobody waits any more, or after a while. Nobody is told of success before it, nor of a failure
that rests on what others wrote. One caller alone pays nothing for it: nothing waits for company.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError
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
            Exception: It cannot be.
        """
        error = _sealed(group.connection, failure)
        if error is not None:
            await self._end(group, error)
        elif self._is_complete(group):
            self._commit_soon(group)
        else:
            self._turn.release()
        # Who is cancelled is told of nothing else, and keeps nobody waiting.
        if failure is None or isinstance(failure, Exception):
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
        self._committing = asyncio.create_task(self._end(group), name="commit")

    async def _end(self, group: _Group, gone: Exception | None = None) -> None:
        self._group = None
        try:
            if gone is not None:
                raise gone
            await group.connection.commit()
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


def _sealed(connection: AsyncConnection, failure: BaseException | None) -> Exception | None:
    """End a member's savepoint; what all of the group must hear where that cannot be done.

    The database rolls everything back by itself for some errors, such as a full disk.
    """
    try:
        if _alive(connection):
            if failure is not None:
                _driver(connection).execute("ROLLBACK TO member")
            _driver(connection).execute("RELEASE member")
            return None
    except sqlite3.Error as error:
        failure = error
    if isinstance(failure, DBAPIError):
        return failure
    gone = Unavailable("The database cannot serve now. Try again.")
    gone.__cause__ = failure
    return gone


def _alive(connection: AsyncConnection) -> bool:
    """Whether the transaction is still there."""
    if connection.closed or connection.invalidated:
        return False
    return bool(_driver(connection).in_transaction)


def _driver(connection: AsyncConnection) -> Any:
    inner: Any = connection.sync_connection
    return inner.connection.driver_connection
