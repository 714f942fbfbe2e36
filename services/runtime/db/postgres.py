"""PostgreSQL, for as many processes as there are.

Each module has a schema. A transaction begins by telling the server whose rows it may see, for the
transaction only: what is set for a session outlives its return to the pool, and shows one tenant's
rows to the next. Being the first statement, it also finds out whether the connection is still good.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from services.runtime.db import secure
from services.runtime.db.base import EVERYONE, Connection, Database, DatabaseUnfit
from services.runtime.errors import PlexusError, ResourceExhausted, Unavailable

_CONNECT_SECONDS = 5.0
_WAIT_SECONDS = 10.0
# Beyond the server's own bounds: a connection that is half open never answers.
_ANSWER_SECONDS = 20.0
_SERVER_SETTINGS = {
    "application_name": "plexus",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
}
# A pool that the server's restart made stale is emptied at the first failure.
_ATTEMPTS = 3
_BEGIN = text(
    "SELECT set_config('search_path', :schema, true), set_config('plexus.tenants', :scope, true)"
)
_FULL = {"53100", "53200"}
_BUSY = {"40001", "40P01", "55P03", "57014", "53300"}


class PostgresDatabase(Database):
    """PostgreSQL by asyncpg, through a pool of connections."""

    dialect = "postgresql"

    def __init__(
        self, url: str, *, owner_url: str = "", connections: int = 8, schema: str = "public"
    ) -> None:
        """Prepare to connect.

        Args:
            url: As the role that serves: neither the tables' owner nor a superuser.
            owner_url: As the role that owns the tables; empty where this process may not.
            connections: How many it keeps, at most.
            schema: The schema in which tables are found.

        Raises:
            DatabaseUnfit: A URL is not one of PostgreSQL's.
        """
        self._url = _driver_url(url)
        self._owner_url = _driver_url(owner_url) if owner_url else None
        self._schema = schema
        self._engine = create_async_engine(
            self._url,
            hide_parameters=True,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_WAIT_SECONDS,
            connect_args=_CONNECT,
        )
        self._reader = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    def of(self, module: str) -> Database:
        """The same pool; the module's schema comes first."""
        view = object.__new__(PostgresDatabase)
        view.__dict__.update(self.__dict__)
        view._schema = module
        return view

    @asynccontextmanager
    async def _write(self, scope: str) -> AsyncIterator[Connection]:
        connection = await self._begun(self._engine, scope)
        with _translated():
            async with _closing(connection):
                yield connection
                await connection.commit()

    @asynccontextmanager
    async def _look(self, scope: str) -> AsyncIterator[Connection]:
        connection = await self._begun(self._reader, scope)
        with _translated():
            async with _closing(connection):
                yield connection

    async def _begun(self, engine: AsyncEngine, scope: str) -> AsyncConnection:
        """A connection in a transaction that the server knows the scope of."""
        for attempt in range(1, _ATTEMPTS + 1):
            with _translated(connecting=True):
                connection = await engine.connect()
            try:
                with _translated():
                    await connection.execute(_BEGIN, {"schema": self._schema, "scope": scope})
            except BaseException as error:
                stale = isinstance(error, _Lost) or connection.invalidated
                await connection.close()
                if not stale or attempt == _ATTEMPTS:
                    raise
            else:
                return connection
        raise AssertionError("the last attempt raises")

    @asynccontextmanager
    async def migrating(self, module: str) -> AsyncIterator[Connection | None]:
        """As the owner, one process at a time; then the module's rows are secured.

        Raises:
            DatabaseUnfit: The role that serves may do what it must not.
        """
        if self._owner_url is None:
            yield None
            return
        owner = create_async_engine(
            self._owner_url, hide_parameters=True, poolclass=NullPool, connect_args=_CONNECT
        )
        number = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], signed=True)
        with _translated(connecting=True):
            async with owner.begin() as connection:
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({number})"))
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{module}"'))
                await connection.execute(_BEGIN, {"schema": module, "scope": EVERYONE})
                yield connection
                await secure.secure(connection, module, self._url.username or "")

    async def require_fit(self) -> None:
        """Refuse a role for which row security does not hold."""
        async with self.read(()) as connection:
            await secure.require_plain_role(connection)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


_CONNECT = {
    "timeout": _CONNECT_SECONDS,
    "command_timeout": _ANSWER_SECONDS,
    "server_settings": _SERVER_SETTINGS,
}


class _Lost(Unavailable):
    """The connection is gone, and with it what was not committed."""


@asynccontextmanager
async def _closing(connection: AsyncConnection) -> AsyncIterator[None]:
    """Give a connection back; what was not committed is rolled back."""
    try:
        yield
    finally:
        await connection.close()


def _driver_url(text_url: str) -> URL:
    try:
        url = make_url(text_url)
    except ArgumentError as error:
        raise DatabaseUnfit("PLEXUS_DATABASE_URL is no URL: write postgresql://…") from error
    if url.get_backend_name() != "postgresql":
        raise DatabaseUnfit(
            f"PLEXUS_DATABASE_URL is about {url.get_backend_name()}: write postgresql://…, or "
            "leave it out for SQLite"
        )
    return url.set(drivername="postgresql+asyncpg")


@contextmanager
def _translated(*, connecting: bool = False) -> Iterator[None]:
    """Turns errors of the driver, of its socket and of the pool into ours."""
    # While it connects, time-outs are the driver's; later they may be the caller's own.
    raw = OSError if connecting else ConnectionError
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("The database is busy. Try again.", retry_after=1) from error
    except IntegrityError:
        raise
    except DBAPIError as error:
        known = _known(
            getattr(error.orig, "sqlstate", None) or "", lost=error.connection_invalidated
        )
        if known is None:
            raise
        raise known from error
    except asyncpg.PostgresError as error:
        known = _known(error.sqlstate or "", lost=True)
        raise known or _Lost("The database cannot serve now. Try again.") from error
    except (asyncpg.InterfaceError, raw) as error:
        raise _Lost("The database cannot serve now. Try again.", retry_after=1) from error


def _known(state: str, *, lost: bool) -> PlexusError | None:
    """What a state of the server's means to a caller."""
    if state in _FULL:
        return ResourceExhausted("The disk is full.", metadata={"limit": "disk"})
    if state in _BUSY:
        return Unavailable("The database is busy. Try again.", retry_after=1)
    # Connection exceptions; an operator's intervention; a standby, which cannot write.
    if lost or state.startswith(("08", "57")) or state == "25006":
        return _Lost("The database cannot serve now. Try again.", retry_after=1)
    return None
