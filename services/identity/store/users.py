"""Tenants and users."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.identity.domain import Account, EmailTaken, User
from services.identity.store.shared import next_number, roles_from_text, roles_to_text
from services.identity.tables import tenants, users
from services.runtime.db import Connection

# Made once: SQLAlchemy takes longer to build these than the database to carry them out.
_ONE = select(users).where(
    users.c.tenant_id == bindparam("tenant"), users.c.user_id == bindparam("user")
)
_ONE_LOCKED = _ONE.with_for_update()
_RENAME = (
    update(users)
    .where(users.c.tenant_id == bindparam("tenant"), users.c.user_id == bindparam("user"))
    .values(display_name=bindparam("name"), version=users.c.version + 1)
    .returning(users)
)


async def is_first(connection: Connection) -> bool:
    """Whether there is no user yet; until the transaction ends nobody else can ask this."""
    await next_number(connection, "registrations")
    return not await any_exists(connection)


async def any_exists(connection: Connection) -> bool:
    """Whether the installation has a user."""
    found = await connection.execute(select(users.c.user_id).limit(1))
    return found.first() is not None


async def found_tenant(connection: Connection, account: Account) -> None:
    """Make a tenant and its first user.

    Raises:
        EmailTaken: Another user has the e-mail. The transaction cannot go on.
    """
    user = account.user
    await connection.execute(
        insert(tenants).values(tenant_id=user.tenant_id, create_time=user.create_time)
    )
    try:
        await connection.execute(
            insert(users).values(
                user_id=user.user_id,
                tenant_id=user.tenant_id,
                email=user.email,
                display_name=user.display_name,
                roles=roles_to_text(user.roles),
                password_hash=account.password_hash,
                create_time=user.create_time,
                version=user.version,
            )
        )
    except IntegrityError as error:
        raise EmailTaken from error


async def by_email(connection: Connection, email: str) -> Account | None:
    """The account with a normalised e-mail, in whichever tenant: who logs in names none."""
    found = await connection.execute(select(users).where(users.c.email == email))
    row = found.first()
    return None if row is None else Account(_user(row), row.password_hash)


async def get(
    connection: Connection, tenant_id: str, user_id: str, *, lock: bool = False
) -> User | None:
    """A tenant's user; locked, it stays as it is until the transaction ends."""
    query = _ONE_LOCKED if lock else _ONE
    row = (await connection.execute(query, {"tenant": tenant_id, "user": user_id})).first()
    return None if row is None else _user(row)


async def rename(connection: Connection, user: User, display_name: str) -> User:
    """Change what others see of a user; gives the user as it is then."""
    values = {"tenant": user.tenant_id, "user": user.user_id, "name": display_name}
    return _user((await connection.execute(_RENAME, values)).one())


async def replace_hash(connection: Connection, account: Account, password_hash: str) -> None:
    """Keep a stronger hash of the same password, unless the password was changed meanwhile."""
    await connection.execute(
        update(users)
        .where(
            users.c.tenant_id == account.user.tenant_id,
            users.c.user_id == account.user.user_id,
            users.c.password_hash == account.password_hash,
        )
        .values(password_hash=password_hash)
    )


def _user(row: Row[Any]) -> User:
    return User(
        user_id=row.user_id,
        tenant_id=row.tenant_id,
        email=row.email,
        display_name=row.display_name,
        roles=roles_from_text(row.roles),
        create_time=row.create_time,
        version=row.version,
    )
