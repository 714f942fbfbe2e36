"""Tokens, and the keys that sign them: replaced in time, published before and after they sign."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.identity import store
from services.identity.domain import (
    CLOCK_SKEW,
    SECOND,
    ApiKey,
    SigningKey,
    User,
    next_key_signs_from,
    published_keys,
    signing_key_at,
)
from services.identity.settings import IdentitySettings
from services.identity.store.signing_keys import GenerationTaken
from services.runtime import clock, log
from services.runtime.credentials import AUDIENCE, ISSUER, role_names
from services.runtime.crypto import MasterKey
from services.runtime.db import Connection, Database
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id

_logger = log.get(__name__)


class SigningKeys:
    """Signs tokens with the key whose time it is.

    The key is chosen within the caller's transaction, so that replicas cannot disagree about it.
    """

    def __init__(
        self, database: Database, master_key: MasterKey, settings: IdentitySettings
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._access_seconds = settings.access_token_seconds
        self._period = int(settings.signing_key_seconds * SECOND)
        self._lead = int(settings.signing_key_lead_seconds * SECOND)
        self._opened: tuple[str, Ed25519PrivateKey] | None = None

    async def published(self) -> list[SigningKey]:
        """The keys that verifiers need now."""
        async with self._database.read(()) as connection:
            return published_keys(await store.signing_keys.every(connection), clock.now())

    async def access_token(self, connection: Connection, user: User, login_id: str) -> str:
        """A token for a login."""
        now = clock.now()
        key = await self._current(connection, now)
        claims = {"jti": new_id("tok"), "sid": login_id}
        expire_time = now + self._access_seconds * SECOND
        return self._sign(key, user.tenant_id, user.user_id, user.roles, claims, now, expire_time)

    async def api_key_token(self, connection: Connection, api_key: ApiKey) -> str:
        """The token of an API key; the key that signs it stays published until it expires."""
        now = clock.now()
        key = await self._current(connection, now)
        await store.signing_keys.publish_until(
            connection, key.kid, api_key.expire_time + CLOCK_SKEW
        )
        claims = {"jti": api_key.api_key_id}
        return self._sign(
            key,
            api_key.tenant_id,
            api_key.user_id,
            api_key.roles,
            claims,
            now,
            api_key.expire_time,
        )

    async def rotate(self) -> None:
        """Make the next key when it is due, and let go of those that are no longer needed."""
        now = clock.now()
        async with self._database.read(()) as connection:
            keys = await store.signing_keys.every(connection)
        await self._seal_again(keys)
        if not self._due(keys, now) and not _retirable(keys, now):
            return
        try:
            async with self._database.transaction(()) as connection:
                await self._rotate(connection, now)
        except GenerationTaken:
            # Another process was first, and did the same.
            _logger.info("signing_key_made_elsewhere")

    async def _seal_again(self, keys: Sequence[SigningKey]) -> None:
        """Seal what another master key sealed with the first one."""
        for key in keys:
            old = key.sealed_private_key
            new = self._master_key.sealed_again(old, about(key.kid)) if old else None
            if new is not None:
                async with self._database.transaction(()) as connection:
                    await store.signing_keys.seal_again(connection, key.kid, old, new)

    async def check(self) -> None:
        """Whether the master key opens the key that signs.

        Raises:
            MasterKeyError: It does not: the installation's master key was replaced.
        """
        async with self._database.read(()) as connection:
            self._private(await self._current(connection, clock.now()))

    async def _rotate(self, connection: Connection, now: int) -> None:
        # Read again: what was due may have been done while this waited for its turn.
        keys = await store.signing_keys.every(connection)
        sign_from = next_key_signs_from(keys, now, self._period, self._lead)
        if sign_from is not None:
            new = self._new_key(keys[-1].generation + 1 if keys else 1, sign_from)
            await store.signing_keys.add(connection, new)
            if keys:
                last_token = sign_from + self._access_seconds * SECOND + CLOCK_SKEW
                await store.signing_keys.publish_until(connection, keys[-1].kid, last_token)
            keys.append(new)
            _logger.info("signing_key_made", kid=new.kid, generation=new.generation)
        current = signing_key_at(keys, now)
        if current is not None:
            await store.signing_keys.retire(connection, current, now)

    def _due(self, keys: list[SigningKey], now: int) -> bool:
        return next_key_signs_from(keys, now, self._period, self._lead) is not None

    def _new_key(self, generation: int, sign_from: int) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        kid = new_id("kid")
        return SigningKey(
            kid=kid,
            generation=generation,
            public_key=_base64url(private.public_key().public_bytes_raw()),
            sealed_private_key=self._master_key.seal(private.private_bytes_raw(), about(kid)),
            sign_from=sign_from,
            publish_until=sign_from,
        )

    async def _current(self, connection: Connection, now: int) -> SigningKey:
        key = signing_key_at(await store.signing_keys.able_to_sign(connection), now)
        if key is None:
            raise Unavailable("Tokens cannot be signed now. Try again.", retry_after=1)
        return key

    def _private(self, key: SigningKey) -> Ed25519PrivateKey:
        if self._opened is None or self._opened[0] != key.kid:
            seed = self._master_key.open(key.sealed_private_key, about(key.kid))
            self._opened = (key.kid, Ed25519PrivateKey.from_private_bytes(seed))
        return self._opened[1]

    def _sign(
        self,
        key: SigningKey,
        tenant_id: str,
        user_id: str,
        roles: frozenset[int],
        claims: Mapping[str, str],
        now: int,
        expire_time: int,
    ) -> str:
        payload: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "tid": tenant_id,
            "roles": role_names(roles),
            "iat": now // SECOND,
            "exp": expire_time // SECOND,
            **claims,
        }
        headers = {"kid": key.kid}
        return jwt.encode(payload, self._private(key), algorithm="EdDSA", headers=headers)


def _retirable(keys: list[SigningKey], now: int) -> bool:
    current = signing_key_at(keys, now)
    return current is not None and any(
        key.generation < current.generation and (key.sealed_private_key or key.publish_until <= now)
        for key in keys
    )


def about(kid: str) -> str:
    """What a key is sealed as."""
    return f"identity/signing-key/{kid}"


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
