"""Credentials that must be refused before they expire, numbered in the order of commits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from services.identity.domain import Revocation
from services.identity.store.shared import next_number
from services.identity.store.shared import purge as purge_rows
from services.identity.tables import revocations
from services.runtime.db import Connection, upsert

_COUNTER = "revocations"


async def add(connection: Connection, revocation: Revocation) -> None:
    """Revoke a credential; one that is revoked stays as it is."""
    number = await next_number(connection, _COUNTER)
    await connection.execute(
        upsert(connection.dialect.name, revocations)
        .values(
            credential_id=revocation.credential_id,
            sequence=number,
            expire_time=revocation.expire_time,
        )
        .on_conflict_do_nothing(index_elements=["credential_id"])
    )


async def since(
    connection: Connection, sequence: int, now: int
) -> tuple[Sequence[Revocation], int]:
    """Everything that was revoked after a number and has not expired, and the last number.

    Both come from one view of the database; 0 asks for everything.
    """
    found = await connection.execute(
        select(revocations)
        .where(revocations.c.sequence > sequence, revocations.c.expire_time > now)
        .order_by(revocations.c.sequence)
    )
    rows = found.all()
    last = rows[-1].sequence if rows else sequence
    return [Revocation(row.credential_id, row.expire_time) for row in rows], last


async def purge(connection: Connection, now: int) -> bool:
    """Delete some expired rows; True where there may be more."""
    return await purge_rows(connection, revocations.c.credential_id, revocations.c.expire_time, now)
