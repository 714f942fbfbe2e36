"""Failed logins by e-mail, known or not, so that guessing is slow and stays slow after a restart.

The e-mail itself is not kept: people type passwords into the wrong field.
"""

from __future__ import annotations

from sqlalchemy import case, delete, func, select, update

from services.identity.domain import (
    FAILURES_KEPT,
    MAX_FAILURE_ROWS,
    SECOND,
    LoginFailures,
    backoff_seconds,
)
from services.identity.store.shared import purge as purge_rows
from services.identity.tables import login_failures
from services.runtime.db import Connection, upsert


async def get(connection: Connection, email_key: str, now: int) -> LoginFailures | None:
    """The run of failures with an e-mail, unless it is so old that it is forgotten."""
    found = await connection.execute(
        select(login_failures).where(
            login_failures.c.email_key == email_key, login_failures.c.expire_time > now
        )
    )
    row = found.first()
    return None if row is None else LoginFailures(row.failures, row.last_time, row.blocked_until)


async def add(connection: Connection, email_key: str, now: int) -> None:
    """Count a failure and set how long the e-mail has to wait."""
    new = upsert(connection.dialect.name, login_failures).values(
        email_key=email_key, failures=1, last_time=now, blocked_until=0, expire_time=0
    )
    counted = await connection.execute(
        new.on_conflict_do_update(
            index_elements=["email_key"],
            set_={
                "failures": case(
                    (login_failures.c.expire_time <= now, 1), else_=login_failures.c.failures + 1
                )
            },
        ).returning(login_failures.c.failures)
    )
    wait = backoff_seconds(int(counted.scalar_one()))
    await connection.execute(
        update(login_failures)
        .where(login_failures.c.email_key == email_key)
        .values(
            last_time=now,
            blocked_until=now + wait * SECOND if wait else 0,
            expire_time=now + FAILURES_KEPT,
        )
    )


async def clear(connection: Connection, email_key: str) -> None:
    """Forget the failures with an e-mail."""
    await connection.execute(delete(login_failures).where(login_failures.c.email_key == email_key))


async def purge(connection: Connection, now: int) -> bool:
    """Delete some expired rows; True where there may be more."""
    return await purge_rows(
        connection, login_failures.c.email_key, login_failures.c.expire_time, now
    )


async def trim(connection: Connection, most: int = MAX_FAILURE_ROWS) -> None:
    """Keep at most so many rows.

    Those with the fewest failures go first, the oldest of them before the others: whoever floods
    the table with invented e-mails pushes out their own.
    """
    count = await connection.execute(select(func.count()).select_from(login_failures))
    over = int(count.scalar_one()) - most
    if over <= 0:
        return
    least = (
        select(login_failures.c.email_key)
        .order_by(login_failures.c.failures, login_failures.c.last_time)
        .limit(over)
    )
    await connection.execute(delete(login_failures).where(login_failures.c.email_key.in_(least)))
