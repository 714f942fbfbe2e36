"""Refresh tokens by their hashes. Spent ones stay until they expire, so that reuse is seen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from services.identity.domain import RefreshToken
from services.identity.store.shared import purge as purge_rows
from services.identity.tables import refresh_tokens
from services.runtime.db import Connection


async def add(connection: Connection, token: RefreshToken) -> None:
    """Keep a new token."""
    await connection.execute(
        insert(refresh_tokens).values(
            token_hash=token.token_hash,
            login_id=token.login_id,
            tenant_id=token.tenant_id,
            user_id=token.user_id,
            expire_time=token.expire_time,
        )
    )


async def is_known(connection: Connection, token_hash: str) -> bool:
    """Whether there is, or was, such a token."""
    found = await connection.execute(
        select(refresh_tokens.c.token_hash).where(refresh_tokens.c.token_hash == token_hash)
    )
    return found.first() is not None


async def spend(connection: Connection, token_hash: str, now: int) -> RefreshToken | None:
    """Spend a token that is neither spent nor expired; of several that try, one gets it."""
    spent = await connection.execute(
        update(refresh_tokens)
        .where(
            refresh_tokens.c.token_hash == token_hash,
            refresh_tokens.c.spent_time.is_(None),
            refresh_tokens.c.expire_time > now,
        )
        .values(spent_time=now)
        .returning(refresh_tokens)
    )
    row = spent.first()
    return None if row is None else _token(row)


async def spent(connection: Connection, token_hash: str) -> RefreshToken | None:
    """A token that was spent before."""
    found = await connection.execute(
        select(refresh_tokens).where(
            refresh_tokens.c.token_hash == token_hash, refresh_tokens.c.spent_time.is_not(None)
        )
    )
    row = found.first()
    return None if row is None else _token(row)


async def delete_login(connection: Connection, tenant_id: str, login_id: str) -> None:
    """Forget every token of a login, spent or not."""
    await connection.execute(
        delete(refresh_tokens).where(
            refresh_tokens.c.tenant_id == tenant_id, refresh_tokens.c.login_id == login_id
        )
    )


async def purge(connection: Connection, now: int) -> bool:
    """Delete some expired rows; True where there may be more."""
    return await purge_rows(
        connection, refresh_tokens.c.token_hash, refresh_tokens.c.expire_time, now
    )


def _token(row: Row[Any]) -> RefreshToken:
    return RefreshToken(
        token_hash=row.token_hash,
        login_id=row.login_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        expire_time=row.expire_time,
    )
