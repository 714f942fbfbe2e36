"""What the stores share: upserts, numbers in commit order, roles as text, purging."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, delete, select, update

from services.identity.tables import counters
from services.runtime.credentials import role_names, role_numbers
from services.runtime.db import Connection

# Few enough rows at a time that nobody waits long for the writer.
_PURGED_AT_ONCE = 1_000


async def next_number(connection: Connection, counter: str) -> int:
    """The next of 1, 2, 3 … in the order of commits.

    Whoever takes a number holds the counter until its transaction ends, so a reader that has seen a
    number has seen all before it. A database's own sequence does not promise that.
    """
    taken = await connection.execute(
        update(counters)
        .where(counters.c.name == counter)
        .values(value=counters.c.value + 1)
        .returning(counters.c.value)
    )
    return int(taken.scalar_one())


async def purge(connection: Connection, key: Column[Any], expiry: Column[Any], now: int) -> bool:
    """Delete some rows that expired; True where there may be more."""
    some = select(key).where(expiry <= now).limit(_PURGED_AT_ONCE)
    gone = await connection.execute(delete(key.table).where(key.in_(some)))
    return gone.rowcount == _PURGED_AT_ONCE


def roles_to_text(roles: frozenset[int]) -> str:
    """Roles as a column has them: `admin,owner`."""
    return ",".join(role_names(roles))


def roles_from_text(text: str) -> frozenset[int]:
    """Roles from a column."""
    return role_numbers(text.split(","))
