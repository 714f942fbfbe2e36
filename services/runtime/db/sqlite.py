"""SQLite, for a single process.

It runs in WAL mode with synchronous=FULL, so what is committed is on the disk. It has one
writer at a time: writers queue here, in order, rather than poll for its lock, and share commits
(see `grouping`). What runs where is in `driver`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.runtime.db.base import EVERYONE, Connection, Database
from services.runtime.db.driver import LOCK_SECONDS, DirectConnection
from services.runtime.db.grouping import GroupCommits
from services.runtime.errors import ResourceExhausted, Unavailable

_READERS = 4
_WAIT_SECONDS = 10.0


class DatabaseDamaged(Exception):
    """The database's file is not one, or is damaged. The text says how to go on."""


class SqliteDatabase(Database):
    """An SQLite file, which is made if it is not there."""

    dialect = "sqlite"

    def __init__(self, file: Path) -> None:
        url = URL.create("sqlite+direct", database=str(file))
        self._threads = ThreadPoolExecutor(1 + _READERS, thread_name_prefix="database")
        self._writer = _engine(url, self._threads, size=1, begin="BEGIN IMMEDIATE")
        self._reader = _engine(url, self._threads, size=_READERS, begin="BEGIN")
        self._commits = GroupCommits(self._writer, _WAIT_SECONDS)

    def of(self, module: str) -> Database:
        """The names of its tables keep modules apart."""
        return self

    def apart(self) -> Database:
        """There is one writer, whoever writes."""
        return self

    @asynccontextmanager
    async def _write(self, scope: str) -> AsyncIterator[Connection]:
        with _translated():
            async with self._commits.transaction() as connection:
                yield connection

    @asynccontextmanager
    async def _look(self, scope: str) -> AsyncIterator[Connection]:
        with _translated():
            async with self._reader.begin() as connection:
                yield connection

    def migrating(self, module: str) -> AbstractAsyncContextManager[Connection]:
        """The write lock keeps everyone else away."""
        return self._write(EVERYONE)

    async def require_fit(self) -> None:
        """A file has no roles."""

    async def close(self) -> None:
        """Close every connection."""
        await self._commits.close()
        await self._reader.dispose()
        await self._writer.dispose()
        self._threads.shutdown(wait=False)


def _engine(url: URL, threads: Executor, *, size: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        url,
        # What is stored has no place in the log, which is where errors go.
        hide_parameters=True,
        pool_size=size,
        max_overflow=0,
        pool_timeout=_WAIT_SECONDS,
        connect_args={
            "factory": DirectConnection,
            "timeout": LOCK_SECONDS,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.patience = _WAIT_SECONDS
        connection.threads, connection.writes = threads, begin != "BEGIN"
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        if begin == "BEGIN":
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()
        connection.bound()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Any) -> None:
        connection.connection.driver_connection.begin(begin)

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the driver's errors into ours, so that no driver's text reaches a caller."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("The database is busy. Try again.", retry_after=1) from error
    except OperationalError as error:
        if "full" in str(error.orig):
            raise ResourceExhausted("The disk is full.", metadata={"limit": "disk"}) from error
        raise Unavailable("The database cannot serve now. Try again.") from error
    except DatabaseError as error:
        if "malformed" in str(error.orig) or "not a database" in str(error.orig):
            raise Unavailable("The database is damaged. Its operator must restore it.") from error
        raise


def check_file(path: Path) -> None:
    """Whether an SQLite file can be opened and its pages hang together.

    Raises:
        DatabaseDamaged: It cannot, or they do not.
    """
    if not path.exists():
        return
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS)
        # Reads the schema and rolls a cut-off transaction back; the whole file would take minutes.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        raise DatabaseDamaged(
            f"the database {path} cannot be opened ({error}): see who owns it and what else uses it"
        ) from error
    except sqlite3.DatabaseError as error:
        raise DatabaseDamaged(
            f"the database {path} is damaged ({error}): put a backup in its place, or move it "
            "away to start empty"
        ) from error
    finally:
        if connection is not None:
            connection.close()
