"""SQLite for SQLAlchemy's asyncio, without a thread between a statement and its rows.

A statement of ours takes microseconds, for it follows an index and its pages are in memory; handing
it to a thread and its rows back takes some hundred, four times over in the usual driver. So
statements run where they are asked for. What waits for the disk or for another process does have a
thread: a commit, and a lock that is not free.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Generator
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
    """A connection whose `commit` and `begin` do not hold up the event loop."""

    # How long `begin` waits for a lock; statements themselves do not.
    patience = 0.0
    writes = False

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
            if error.sqlite_errorcode & 0xFF not in _LOCKED:
                raise
            await_(_in_thread(lambda: self._begin_patiently(statement)))

    def _begin_patiently(self, statement: str) -> None:
        self.execute(f"PRAGMA busy_timeout={int(self.patience * 1000)}")
        try:
            self.execute(statement)
        finally:
            self.execute("PRAGMA busy_timeout=0")

    def commit(self) -> None:
        """Commit; what was written is on the disk then."""
        if self.writes and self.in_transaction:
            await_(_in_thread(super().commit))
        else:
            super().commit()


async def _in_thread(work: Callable[[], None]) -> None:
    """Work that is waited for even by whoever is cancelled: a connection has one user at a time."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
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
        """Execute a statement, here and now."""
        cursor.execute(statement, parameters)
        await_(_NOTHING)

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        """Execute it for several sets of parameters."""
        cursor.executemany(statement, parameters)
        await_(_NOTHING)

    def get_driver_connection(self, connection: Any) -> Any:
        """There is nothing around it."""
        return connection


registry.register("sqlite.direct", __name__, "DirectDialect")
