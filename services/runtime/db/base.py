"""What both databases do, and whose data a transaction may touch.

PostgreSQL shows a transaction the rows of the tenants it was opened for and no others, also where a
store forgets to ask for them alone. SQLite cannot, so that there the stores' own filters are all
there is; but a transaction that does not say whose data it is about is refused on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Literal

from sqlalchemy import Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.runtime.context import current_or_none
from services.runtime.errors import Unavailable

Connection = AsyncConnection
# For what is no tenant's, or every tenant's: logins, purges, taking up what a process left behind.
EVERYONE: Final = "*"
Whose = Iterable[str] | Literal["*"] | None
_SEPARATOR = ","


def upsert(dialect: str, table: Table) -> Any:
    """An INSERT that takes ON CONFLICT, in a database's own dialect."""
    if dialect == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


class Conflict(Unavailable):
    """Two transactions stood in each other's way, and this one was undone: it can be repeated."""


class DatabaseUnfit(Exception):
    """The database, or the role in it, is not one that can be served from. The text says why."""


class Database(ABC):
    """One database for a process."""

    dialect: str

    @abstractmethod
    def of(self, module: str) -> Database:
        """The same database as one module sees it."""

    @abstractmethod
    def apart(self) -> Database:
        """The same tables, for what must not wait for others: it is never kept from a connection.

        It is closed with this one.
        """

    @abstractmethod
    def _write(self, scope: str) -> AbstractAsyncContextManager[Connection]:
        """A transaction, with the driver's errors turned into ours."""

    @abstractmethod
    def _look(self, scope: str) -> AbstractAsyncContextManager[Connection]:
        """A transaction that only reads, with the driver's errors turned into ours."""

    @abstractmethod
    def migrating(self, module: str) -> AbstractAsyncContextManager[Connection | None]:
        """A transaction that may change a module's tables, and whom no other disturbs.

        Gives None where this process may not change them.
        """

    @abstractmethod
    async def require_fit(self) -> None:
        """Refuse a database that must not be served from.

        Raises:
            DatabaseUnfit: Row security would not hold.
            Unavailable: It cannot be asked.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    @asynccontextmanager
    async def transaction(self, whose: Whose = None) -> AsyncIterator[Connection]:
        """A unit of work: commits when the block ends, rolls back when it raises.

        Args:
            whose: The tenants whose data it touches; left out, the one of the current call.

        Raises:
            LookupError: No tenant was named, and no call acts for one.
            Unavailable: The database did not take the work in time.
            ResourceExhausted: The disk is full.
        """
        async with self._write(scope_of(whose)) as connection:
            yield connection

    @asynccontextmanager
    async def read(self, whose: Whose = None) -> AsyncIterator[Connection]:
        """A consistent view for reading.

        Args:
            whose: As for a transaction.

        Raises:
            LookupError: No tenant was named, and no call acts for one.
            Unavailable: The database cannot be read now.
        """
        async with self._look(scope_of(whose)) as connection:
            yield connection

    async def check(self) -> None:
        """Whether it answers.

        Raises:
            Unavailable: It does not.
        """
        async with self.read(()) as connection:
            await connection.execute(text("SELECT 1"))


def scope_of(whose: Whose) -> str:
    """The tenants as one text, which is how PostgreSQL is told of them.

    Raises:
        LookupError: None was named, and no call acts for one.
        ValueError: One of them is no tenant's id.
    """
    if whose is None:
        call = current_or_none()
        if call is None or call.principal is None:
            raise LookupError("whose data? Name the tenants, or EVERYONE, where no call has one")
        # The mesh itself, before it acts for a tenant, has none: it sees nothing.
        whose = (call.principal.tenant_id,) if call.principal.tenant_id else ()
    if whose == EVERYONE:
        return EVERYONE
    if isinstance(whose, str):
        raise TypeError("name tenants in a tuple")
    tenants = sorted(set(whose))
    if any(not each or EVERYONE in each or _SEPARATOR in each for each in tenants):
        raise ValueError("that is no tenant's id")
    return _SEPARATOR.join(tenants)
