"""API keys. The token itself is nowhere."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, tuple_, update

from services.identity.domain import ApiKey
from services.identity.store.shared import purge as purge_rows
from services.identity.store.shared import roles_from_text, roles_to_text
from services.identity.tables import api_keys, tenants
from services.runtime.db import Connection


async def lock(connection: Connection, tenant_id: str) -> None:
    """Let nobody else count and add a tenant's keys until the transaction ends."""
    await connection.execute(
        select(tenants.c.tenant_id).where(tenants.c.tenant_id == tenant_id).with_for_update()
    )


async def count(connection: Connection, tenant_id: str, now: int) -> tuple[int, int]:
    """How many of a tenant's keys are live, and how many have not expired, revoked or not."""
    found = await connection.execute(
        select(func.count(), func.count(api_keys.c.revoke_time)).where(
            api_keys.c.tenant_id == tenant_id, api_keys.c.expire_time > now
        )
    )
    unexpired, revoked = found.one()
    return unexpired - revoked, unexpired


async def add(connection: Connection, key: ApiKey) -> None:
    """Keep a new key."""
    await connection.execute(
        insert(api_keys).values(
            api_key_id=key.api_key_id,
            tenant_id=key.tenant_id,
            user_id=key.user_id,
            display_name=key.display_name,
            roles=roles_to_text(key.roles),
            create_time=key.create_time,
            expire_time=key.expire_time,
        )
    )


async def is_live(connection: Connection, tenant_id: str, api_key_id: str, now: int) -> bool:
    """Whether a tenant's key is neither revoked nor expired."""
    found = await connection.execute(
        select(api_keys.c.api_key_id).where(
            _live(tenant_id, now), api_keys.c.api_key_id == api_key_id
        )
    )
    return found.first() is not None


async def get(connection: Connection, tenant_id: str, api_key_id: str) -> ApiKey | None:
    """A tenant's key, live or not; None where it is unknown or forgotten."""
    found = await connection.execute(
        select(api_keys).where(
            api_keys.c.tenant_id == tenant_id, api_keys.c.api_key_id == api_key_id
        )
    )
    row = found.first()
    return None if row is None else _key(row)


async def page(
    connection: Connection, tenant_id: str, now: int, size: int, after: tuple[int, str] | None
) -> list[ApiKey]:
    """A tenant's live keys, newest first, from behind the one with this time and id."""
    order = tuple_(api_keys.c.create_time, api_keys.c.api_key_id)
    query = select(api_keys).where(_live(tenant_id, now))
    if after is not None:
        query = query.where(order < after)
    found = await connection.execute(
        query.order_by(api_keys.c.create_time.desc(), api_keys.c.api_key_id.desc()).limit(size)
    )
    return [_key(row) for row in found]


async def revoke(
    connection: Connection, tenant_id: str, api_key_id: str, now: int
) -> ApiKey | None:
    """Mark a tenant's live key as revoked; None where there is no such key."""
    revoked = await connection.execute(
        update(api_keys)
        .where(_live(tenant_id, now), api_keys.c.api_key_id == api_key_id)
        .values(revoke_time=now)
        .returning(api_keys)
    )
    row = revoked.first()
    return None if row is None else _key(row)


async def purge(connection: Connection, now: int) -> bool:
    """Delete some expired rows; True where there may be more."""
    return await purge_rows(connection, api_keys.c.api_key_id, api_keys.c.expire_time, now)


def _live(tenant_id: str, now: int) -> ColumnElement[bool]:
    return and_(
        api_keys.c.tenant_id == tenant_id,
        api_keys.c.revoke_time.is_(None),
        api_keys.c.expire_time > now,
    )


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        api_key_id=row.api_key_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        display_name=row.display_name,
        roles=roles_from_text(row.roles),
        create_time=row.create_time,
        expire_time=row.expire_time,
    )
