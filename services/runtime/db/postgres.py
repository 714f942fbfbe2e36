"""PostgreSQL, for as many processes as there are.

Each module has a schema. A transaction begins by telling the server whose rows it may see, for the
transaction only: what is set for a session outlives its return to the pool, and shows one tenant's
rows to the next. Being the first statement, it also finds out whether the connection is still good.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from services.runtime.db import secure
from services.runtime.db.base import EVERYONE, Conflict, Connection, Database, DatabaseUnfit
from services.runtime.errors import InvalidRequest, PlexusError, ResourceExhausted, Unavailable

_CONNECT_SECONDS = 5.0
_WAIT_SECONDS = 10.0
# Beyond the server's own bounds: a connection that is half open never answers.
_ANSWER_SECONDS = 6.0
_BEGIN_SECONDS = 2.0
_CLOSE_SECONDS = 3.0
_MIGRATION_WAIT = "10min"
# A pool that the server's restart made stale is emptied at the first failure.
_ATTEMPTS = 3
_BEGIN = text(
    "SELECT set_config('search_path', :schema, true), set_config('plexus.tenants', :scope, true)"
)
_FULL = {"53100", "53200"}
_CONFLICT = {"40001", "40P01"}
# What is no text to PostgreSQL: of what protobuf takes, NUL alone.
_UNREADABLE = {"22021", "22P05"}
_BUSY = {"55P03", "57014", "53300"}
# What an operator set, not what befell the server: bad names, roles, passwords, rights.
_UNFIT = ("28", "3D000", "42501")
_AWAY = "The database cannot serve now. Try again."


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
        self._apart: list[PostgresDatabase] = []
        self._engine = create_async_engine(
            self._url,
            hide_parameters=True,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_WAIT_SECONDS,
            connect_args=_SERVING,
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

    def apart(self) -> Database:
        """The same tables through a connection that nobody else holds."""
        made = PostgresDatabase(
            self._url.render_as_string(hide_password=False), connections=1, schema=self._schema
        )
        self._apart.append(made)
        return made

    @asynccontextmanager
    async def _write(self, scope: str) -> AsyncIterator[Connection]:
        async with self._begun(self._engine, scope) as connection:
            yield connection
            await connection.commit()

    @asynccontextmanager
    async def _look(self, scope: str) -> AsyncIterator[Connection]:
        async with self._begun(self._reader, scope) as connection:
            yield connection

    @asynccontextmanager
    async def _begun(self, engine: AsyncEngine, scope: str) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that the server knows the scope of."""
        connection = await self._begin(engine, scope)
        with _translated():
            try:
                yield connection
            except (
                asyncio.CancelledError,
                OSError,
                PlexusError,
                DBAPIError,
                asyncpg.PostgresError,
            ):
                # It may be half open, or in the middle of an answer: a word more could take long.
                await _drop(connection)
                raise
            finally:
                await connection.close()

    async def _begin(self, engine: AsyncEngine, scope: str) -> AsyncConnection:
        for attempt in range(1, _ATTEMPTS + 1):
            with _translated():
                connection = await engine.connect()
            try:
                with _translated():
                    await self._tell(connection, scope)
            except BaseException as error:
                await _drop(connection)
                await connection.close()
                if not isinstance(error, _Lost) or attempt == _ATTEMPTS:
                    raise
            else:
                return connection
        raise AssertionError("the last attempt raises")

    async def _tell(self, connection: AsyncConnection, scope: str) -> None:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        # Cut off rather than cancelled: a cancel would wait for the server's word.
        cut = asyncio.get_running_loop().call_later(_BEGIN_SECONDS, raw.terminate)
        try:
            await connection.execute(_BEGIN, {"schema": self._schema, "scope": scope})
        finally:
            cut.cancel()

    @asynccontextmanager
    async def migrating(self, module: str) -> AsyncIterator[Connection | None]:
        """As the owner, one process at a time; then the module's rows are secured.

        Raises:
            DatabaseUnfit: The owner cannot log in, or may not make tables.
        """
        if self._owner_url is None:
            yield None
            return
        owner = create_async_engine(
            self._owner_url, hide_parameters=True, poolclass=NullPool, connect_args=_MIGRATING
        )
        number = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], signed=True)
        with _explained("PLEXUS_DATABASE_OWNER_URL"), _translated():
            async with owner.begin() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_WAIT}'"))
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({number})"))
                # Tables that are served from are not waited for: everybody would wait behind.
                await connection.execute(text("SET LOCAL lock_timeout = '5s'"))
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{module}"'))
                await connection.execute(_BEGIN, {"schema": module, "scope": EVERYONE})
                yield connection
                await secure.secure(connection, module, self._url.username or "")

    async def require_fit(self) -> None:
        """Refuse a role for which row security does not hold."""
        with _explained("PLEXUS_DATABASE_URL"):
            async with self.read(()) as connection:
                await secure.require_plain_role(connection)

    async def close(self) -> None:
        """Close every connection, also those whose server does not answer."""
        for each in self._apart:
            await each.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._engine.dispose()
        except TimeoutError:
            await self._engine.dispose(close=False)


_SERVING: dict[str, Any] = {
    "timeout": _CONNECT_SECONDS,
    "command_timeout": _ANSWER_SECONDS,
    "server_settings": {
        "application_name": "plexus",
        # Hardly anybody waits for longer; and what a connection held when it was lost, the server
        # keeps from others until then.
        "statement_timeout": "5s",
        "lock_timeout": "4s",
        "idle_in_transaction_session_timeout": "5s",
    },
}
# A large table may take its time.
_MIGRATING: dict[str, Any] = {
    "timeout": _CONNECT_SECONDS,
    "server_settings": {"application_name": "plexus-migrate"},
}


class _Lost(Unavailable):
    """The connection is gone, and with it what was not committed."""


async def _drop(connection: AsyncConnection) -> None:
    """Let go of a connection without a word to the server, which may not answer."""
    if connection.closed or connection.invalidated:
        return

    async def drop() -> None:
        raw = await connection.get_raw_connection()
        if raw.driver_connection is not None:
            raw.driver_connection.terminate()
        await connection.invalidate()

    await asyncio.shield(drop())


def _driver_url(text_url: str) -> URL:
    try:
        url = make_url(text_url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseUnfit("PLEXUS_DATABASE_URL is no URL: write postgresql://…") from error
    if url.get_backend_name() != "postgresql":
        raise DatabaseUnfit(
            f"PLEXUS_DATABASE_URL is about {url.get_backend_name()}: write postgresql://…, or "
            "leave it out for SQLite"
        )
    if not url.username:
        raise DatabaseUnfit("PLEXUS_DATABASE_URL names no role: write postgresql://role@…")
    # What libpq calls sslmode, the driver calls ssl.
    query = {("ssl" if name == "sslmode" else name): value for name, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


@contextmanager
def _explained(variable: str) -> Iterator[None]:
    """Turns what the server refuses an operator into a sentence for one."""
    try:
        yield
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if not state.startswith(_UNFIT):
            raise
        raise DatabaseUnfit(f"{variable}: the server refuses it ({error.orig})") from error
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(_UNFIT):
            raise
        raise DatabaseUnfit(f"{variable}: the server refuses it ({error})") from error
    except TypeError as error:
        raise DatabaseUnfit(f"{variable} has a parameter that is not known: {error}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Turns errors of the driver, of its socket and of the pool into ours."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("The database is busy. Try again.", retry_after=1) from error
    except IntegrityError:
        raise
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        known = _known(state, lost=error.connection_invalidated)
        if known is None:
            raise
        raise known from error
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        if state.startswith(_UNFIT):
            raise
        raise _known(state, lost=True) or _Lost(_AWAY) from error
    except (asyncpg.InterfaceError, OSError) as error:  # time-outs of the driver's are among them
        raise _Lost(_AWAY, retry_after=1) from error


def _known(state: str, *, lost: bool) -> PlexusError | None:
    """What a state of the server's means to a caller."""
    if state in _FULL:
        return ResourceExhausted("The disk is full.", metadata={"limit": "disk"})
    if state in _CONFLICT:
        return Conflict("The database is busy. Try again.", retry_after=1)
    if state in _BUSY:
        return Unavailable("The database is busy. Try again.", retry_after=1)
    if state in _UNREADABLE:
        return InvalidRequest("A text has the character NUL, which cannot be kept.")
    # Connection exceptions; an operator's intervention; a standby, which cannot write.
    if lost or state.startswith(("08", "57")) or state == "25006":
        return _Lost(_AWAY, retry_after=1)
    return None
