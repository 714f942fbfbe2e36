"""Making accounts and changing them."""

from __future__ import annotations

from plexus.options.v1.options_pb2 import Role

from services.identity import store
from services.identity.domain import (
    Account,
    Action,
    RegistrationClosed,
    User,
    normalise_email,
    update_is_done,
)
from services.identity.service.audit import record
from services.identity.service.passwords import Passwords
from services.identity.settings import IdentitySettings
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import EVERYONE, Connection, Database
from services.runtime.errors import NotFound
from services.runtime.ids import new_id


class Accounts:
    """The accounts of the installation."""

    def __init__(
        self, database: Database, passwords: Passwords, settings: IdentitySettings
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._closed = settings.registration == "closed"

    async def register(self, email: str, password: str, display_name: str) -> User:
        """Make an account, and a tenant that it owns.

        Raises:
            EmailTaken: Another account has the e-mail.
            RegistrationClosed: The operator lets nobody in.
            ResourceExhausted: Too many passwords are being hashed.
        """
        await self._refuse_early()
        password_hash = await self._passwords.hash(password)
        user = User(
            user_id=new_id("usr"),
            tenant_id=new_id("ten"),
            email=normalise_email(email),
            display_name=display_name,
            roles=frozenset({int(Role.ROLE_OWNER)}),
            create_time=clock.now(),
            version=1,
        )
        # Whether there is anybody yet is no tenant's own question.
        whose = EVERYONE if self._closed else (user.tenant_id,)
        async with self._database.transaction(whose) as connection:
            if self._closed and not await store.users.is_first(connection):
                raise RegistrationClosed
            await store.users.found_tenant(connection, Account(user, password_hash))
            await record(
                connection,
                Action.USER_REGISTER,
                tenant_id=user.tenant_id,
                subject_id=user.user_id,
            )
        return user

    async def profile(self, principal: Principal) -> User:
        """The caller's own account.

        Raises:
            NotFound: The caller is no user.
        """
        async with self._database.read() as connection:
            return await _user(connection, principal)

    async def update_profile(
        self, principal: Principal, display_name: str | None, etag: str
    ) -> User:
        """Change what is set of the caller's own account.

        Raises:
            NotFound: The caller is no user.
            StaleEtag: The account changed since the etag was read.
        """
        async with self._database.transaction() as connection:
            user = await _user(connection, principal, lock=True)
            if update_is_done(user, display_name, etag) or display_name is None:
                return user
            renamed = await store.users.rename(connection, user, display_name)
            await record(
                connection,
                Action.USER_UPDATE,
                tenant_id=user.tenant_id,
                subject_id=user.user_id,
                actor=principal.actor_id,
            )
            return renamed

    async def _refuse_early(self) -> None:
        """Hash no password for those who will not get in anyway."""
        if self._closed:
            async with self._database.read(EVERYONE) as connection:
                if await store.users.any_exists(connection):
                    raise RegistrationClosed


async def _user(connection: Connection, principal: Principal, *, lock: bool = False) -> User:
    user = await store.users.get(connection, principal.tenant_id, principal.user_id, lock=lock)
    if user is None:
        raise NotFound.of("user")
    return user
