"""API keys: made, listed, revoked."""

from __future__ import annotations

from services.identity import store
from services.identity.domain import (
    API_KEY_PREFIX,
    CLOCK_SKEW,
    MAX_LIVE_API_KEYS,
    MAX_UNEXPIRED_API_KEYS,
    Action,
    ApiKey,
    Revocation,
    TooManyApiKeys,
    api_key_expiry,
    api_key_roles,
)
from services.identity.service.audit import is_api_key, record
from services.identity.service.revocations import TOPIC
from services.identity.service.signing import SigningKeys
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Connection, Database
from services.runtime.errors import NotFound, Unauthenticated
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies
from services.runtime.shared import Notices


class ApiKeys:
    """The API keys of every tenant."""

    def __init__(
        self, database: Database, signing: SigningKeys, notices: Notices, replies: Replies
    ) -> None:
        self._database = database
        self._replies = replies
        self._signing = signing
        self._notices = notices

    async def create(
        self,
        principal: Principal,
        display_name: str,
        roles: frozenset[int],
        expire_time: int | None,
        call: Repeatable,
    ) -> tuple[ApiKey, str]:
        """Make a key; its token is returned, and kept sealed for a day for who asks again.

        Raises:
            AlreadyExists: The idempotency key stands for another request.
            InvalidRequest: It would expire too late.
            PermissionDenied: A role is above the caller's own.
            TooManyApiKeys: The tenant has as many as it can have.
            Unauthenticated: The caller's own key was revoked a moment ago.
        """
        now = clock.now()
        key = ApiKey(
            api_key_id=new_id(API_KEY_PREFIX),
            tenant_id=principal.tenant_id,
            user_id=principal.user_id,
            display_name=display_name,
            roles=api_key_roles(roles, principal.roles),
            create_time=now,
            expire_time=api_key_expiry(expire_time, now),
        )
        async with self._database.transaction() as connection:
            await store.api_keys.lock(connection, key.tenant_id)
            kept = await self._replies.find(connection, call)
            if kept is not None:
                api_key_id, _, token = kept.decode().partition(" ")
                first = await store.api_keys.get(connection, key.tenant_id, api_key_id)
                return first or key, token
            await _check_parent(connection, principal, now)
            await _check_bounds(connection, key.tenant_id, now)
            await store.api_keys.add(connection, key)
            token = await self._signing.api_key_token(connection, key)
            await self._replies.keep(connection, call, f"{key.api_key_id} {token}".encode())
            await record(
                connection,
                Action.API_KEY_CREATE,
                tenant_id=key.tenant_id,
                subject_id=key.api_key_id,
                actor=principal.actor_id,
            )
        return key, token

    async def page(
        self, principal: Principal, size: int, after: tuple[int, str] | None
    ) -> list[ApiKey]:
        """The tenant's live keys, newest first, from behind a time and id."""
        async with self._database.read() as connection:
            return await store.api_keys.page(
                connection, principal.tenant_id, clock.now(), size, after
            )

    async def delete(self, principal: Principal, api_key_id: str) -> None:
        """Revoke a key.

        Raises:
            NotFound: The tenant has no such key, or no longer.
        """
        async with self._database.transaction() as connection:
            key = await store.api_keys.revoke(
                connection, principal.tenant_id, api_key_id, clock.now()
            )
            if key is None:
                raise NotFound.of("api_key")
            await store.revocations.add(
                connection, Revocation(key.api_key_id, key.expire_time + CLOCK_SKEW)
            )
            await record(
                connection,
                Action.API_KEY_DELETE,
                tenant_id=key.tenant_id,
                subject_id=key.api_key_id,
                actor=principal.actor_id,
            )
        await self._notices.publish(TOPIC)


async def _check_parent(connection: Connection, principal: Principal, now: int) -> None:
    """A revoked key must not make itself a successor in the moment before all have heard of it."""
    if not is_api_key(principal):
        return
    parent = principal.credential_id
    if not await store.api_keys.is_live(connection, principal.tenant_id, parent, now):
        raise Unauthenticated("The API key is revoked.")


async def _check_bounds(connection: Connection, tenant_id: str, now: int) -> None:
    live, unexpired = await store.api_keys.count(connection, tenant_id, now)
    if live >= MAX_LIVE_API_KEYS:
        raise TooManyApiKeys("api_keys", MAX_LIVE_API_KEYS)
    if unexpired >= MAX_UNEXPIRED_API_KEYS:
        raise TooManyApiKeys("unexpired_api_keys", MAX_UNEXPIRED_API_KEYS)
