"""SQLite for SQLAlchemy's asyncio, without a thread between a statement and its rows.

A statement of ours takes microseconds, for it follows an index and its pages are in memory; handing
it to a thread and its rows back takes some hundred, four times over in the usual driver. So
statements run where they are asked for. What takes longer does have a thread: a commit, which waits
for the disk; a lock that another process has; many rows or many bytes at once; and a query that
turns out to be long, which is broken off after some milliseconds and asked again there.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Executor
from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util import await_


class _Nothing(Awaitable[None]):
    """What is awaited where nothing is to be waited for: SQLAlchemy insists on something."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_NOTHING = _Nothing()
# How long a query may hold up the event loop, and how long a statement may for another process's
# lock.
QUERY_SECONDS = 0.003
LOCK_SECONDS = 0.05
# Between two looks at the clock; a few hundredths of a millisecond.
_INSTRUCTIONS = 2000
_MANY = 50
# Writing so many bytes takes longer than handing them to a thread.
_LARGE_BYTES = 65_536
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class DirectCursor(sqlite3.Cursor):
    """A cursor whose rows are there when a statement was executed.

    A statement that is left half read would keep its view of the database open.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._rows: deque[Any] = deque()

    def execute(self, *arguments: Any) -> DirectCursor:
        """Execute a statement and read its rows."""
        super().execute(*arguments)
        self._rows = deque(super().fetchall() if self.description else ())
        return self

    def fetchone(self) -> Any:
        """The next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Some of the next rows."""
        return [self._rows.popleft() for _ in range(min(size or 1, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """Every row that is left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def _async_soft_close(self) -> None:
        """SQLAlchemy calls it when it needs no more of the driver's own."""


class DirectConnection(sqlite3.Connection):
    """A connection that holds up the event loop for moments only.

    Attributes:
        threads: Where what takes long is done.
        patience: How long that may take, in seconds; a commit and a change take what they take.
        writes: Whether there is anything to commit.
    """

    threads: Executor
    patience = 0.0
    writes = False
    _until = math.inf

    def bound(self) -> None:
        """From now on queries end at their time."""
        self.set_progress_handler(lambda: time.monotonic() > self._until, _INSTRUCTIONS)

    def cursor(self, factory: Any = DirectCursor) -> Any:
        """A cursor of this kind."""
        return super().cursor(factory)

    def begin(self, statement: str) -> None:
        """Begin a transaction.

        Raises:
            sqlite3.OperationalError: Another process has the lock for too long.
        """
        try:
            self.execute(statement)
        except sqlite3.OperationalError as error:
            if not self.writes or error.sqlite_errorcode & 0xFF not in _LOCKED:
                raise
            await_(_in(self.threads, lambda: self._begin_patiently(statement)))

    def _begin_patiently(self, statement: str) -> None:
        self.execute(f"PRAGMA busy_timeout={int(self.patience * 1000)}")
        try:
            self.execute(statement)
        finally:
            self.execute(f"PRAGMA busy_timeout={int(LOCK_SECONDS * 1000)}")

    def query(self, work: Callable[[], object]) -> None:
        """Do what only reads: here if it is short, else in a thread.

        Raises:
            sqlite3.OperationalError: It takes longer than a query may.
        """
        began = time.monotonic()
        try:
            self._until = began + QUERY_SECONDS
            work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self._until = began + self.patience
            await_(_in(self.threads, work, self._give_up))
        finally:
            self._until = math.inf

    def _give_up(self) -> None:
        self._until = 0.0

    def commit(self) -> None:
        """Commit; what was written is on the disk then."""
        if self.writes and self.in_transaction:
            await_(_in(self.threads, super().commit))
        else:
            super().commit()

    def close(self) -> None:
        """Close it. SQLite keeps the lock of an open transaction until the last cursor is gone."""
        if self.in_transaction:
            self.rollback()
        super().close()


async def _in(
    threads: Executor, work: Callable[[], object], give_up: Callable[[], None] | None = None
) -> None:
    """Work that is waited for even by whoever is cancelled: a connection has one user at a time."""
    running = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        if give_up is not None:
            give_up()
        await asyncio.wait({running})
        running.exception()  # nobody is left whom it could be told
        raise


class DirectDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's own for SQLite, on connections of this kind."""

    driver = "direct"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Whoever waits for a connection waits in the event loop."""
        return AsyncAdaptedQueuePool

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Execute a statement."""
        connection = cursor.connection
        # A change that is broken off takes its whole transaction with it, a query does not.
        if statement.startswith("SELECT") or not connection.writes:
            connection.query(lambda: cursor.execute(statement, parameters))
        elif _is_large(parameters):
            await_(_in(connection.threads, lambda: cursor.execute(statement, parameters)))
        else:
            cursor.execute(statement, parameters)
        await_(_NOTHING)

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        """Execute it for several sets of parameters."""
        if len(parameters) < _MANY:
            cursor.executemany(statement, parameters)
        else:
            threads = cursor.connection.threads
            await_(_in(threads, lambda: cursor.executemany(statement, parameters)))
        await_(_NOTHING)

    def get_driver_connection(self, connection: Any) -> Any:
        """There is nothing around it."""
        return connection


def _is_large(parameters: Any) -> bool:
    return any(type(each) is bytes and len(each) > _LARGE_BYTES for each in parameters)


registry.register("sqlite.direct", __name__, "DirectDialect")
