"""Credentials: the tokens that callers bring, and the assertions that services make to each other.

A token is a JWT (RFC 7519) signed with Ed25519; identity makes it, everybody verifies it with the
public keys. An assertion is a short-lived JWT under a key that only services of this mesh have; it
carries the verified caller across a hop, so that work may outlive the caller's own token.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jwt
from plexus.options.v1.options_pb2 import Role

from services.runtime.context import Principal
from services.runtime.errors import Unauthenticated

ISSUER = "plexus"
AUDIENCE = "plexus"
_MESH_AUDIENCE = "plexus-mesh"
_ASSERTION_SECONDS = 60
_CACHE = 10_000
_K = TypeVar("_K")
_V = TypeVar("_V")
_REFUSED = "The credential is missing, expired, forged or revoked. Log in again."


class Trust(Protocol):
    """What verification needs to know, kept current by whoever composes the process."""

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The public key with this id, or None where there is none."""
        ...

    def revoked(self, credential_ids: Sequence[str]) -> bool:
        """Whether one of these is revoked.

        Raises:
            Unavailable: That cannot be known now.
        """
        ...


class TokenVerifier:
    """Verifies bearer tokens; a signature that held once is not computed again."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._seen: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """The caller that a token stands for.

        Raises:
            Unauthenticated: It is expired, forged, of another issuer, or revoked.
            Unavailable: Revocations cannot be known now.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._seen.get(digest)
        if known is None:
            known = self._remember(digest, await self._decode(token))
        principal, expires = known
        if time.time() >= expires:
            self._seen.pop(digest, None)
            raise Unauthenticated(_REFUSED)
        self.require_unrevoked(principal)
        return principal

    def require_unrevoked(self, principal: Principal) -> None:
        """Check again what may change while a token is good.

        Raises:
            Unauthenticated: The credential, or its whole login, is revoked.
            Unavailable: Revocations cannot be known now.
        """
        if self._trust.revoked((principal.credential_id, principal.login_id)):
            raise Unauthenticated(_REFUSED)

    def _remember(self, digest: bytes, claims: Mapping[str, object]) -> tuple[Principal, float]:
        names = claims.get("roles")
        principal = Principal(
            tenant_id=str(claims["tid"]),
            user_id=str(claims["sub"]),
            credential_id=str(claims["jti"]),
            roles=role_numbers(names if isinstance(names, list) else []),
            login_id=str(claims.get("sid", "")),
        )
        entry = (principal, float(str(claims["exp"])))
        self._seen[digest] = entry
        if len(self._seen) > _CACHE:
            self._seen.popitem(last=False)
        return entry

    async def _decode(self, token: str) -> Mapping[str, object]:
        try:
            kid = str(jwt.get_unverified_header(token).get("kid", ""))
            key = await self._trust.key(kid)
            if key is None:
                raise Unauthenticated(_REFUSED)
            claims: Mapping[str, object] = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                issuer=ISSUER,
                audience=AUDIENCE,
                # When it was issued proves nothing, and clocks differ by seconds.
                options={"require": ["exp", "sub", "tid", "jti"], "verify_iat": False},
            )
        except (jwt.PyJWTError, UnicodeError, ValueError) as error:
            raise Unauthenticated(_REFUSED) from error
        return claims


class MeshSigner:
    """Makes and verifies assertions between services of one mesh."""

    def __init__(self, key: bytes, *others: bytes) -> None:
        """Take the key to sign with, and others that this mesh's services may have signed with."""
        self._key = key
        self._keys = (key, *others)
        self._made: OrderedDict[Principal, tuple[str, float]] = OrderedDict()
        self._seen: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    def sign(self, principal: Principal) -> str:
        """An assertion that this mesh acts for `principal`, good for half a minute at least."""
        made = self._made.get(principal)
        now = time.time()
        if made is not None and made[1] - now > _ASSERTION_SECONDS / 2:
            return made[0]
        expires = now + _ASSERTION_SECONDS
        assertion = jwt.encode(
            {
                "aud": _MESH_AUDIENCE,
                "exp": expires,
                "tid": principal.tenant_id,
                "sub": principal.user_id,
                "jti": principal.credential_id,
                "roles": role_names(principal.roles),
            },
            self._key,
            algorithm="HS256",
        )
        _keep(self._made, principal, (assertion, expires))
        return assertion

    def verify(self, assertion: str) -> Principal:
        """The caller whom a service of this mesh acts for.

        Raises:
            Unauthenticated: No service of this mesh made it, or too long ago.
        """
        known = self._seen.get(assertion)
        if known is None:
            claims = self._claims(assertion)
            principal = Principal(
                tenant_id=claims["tid"],
                user_id=claims["sub"],
                credential_id=claims["jti"],
                roles=role_numbers(claims["roles"]),
                mesh=True,
            )
            known = (principal, float(claims["exp"]))
            _keep(self._seen, assertion, known)
        if time.time() >= known[1]:
            raise Unauthenticated(_REFUSED)
        return known[0]

    def _claims(self, assertion: str) -> Mapping[str, Any]:
        refused: Exception | None = None
        for key in self._keys:
            try:
                claims: Mapping[str, Any] = jwt.decode(
                    assertion,
                    key,
                    algorithms=["HS256"],
                    audience=_MESH_AUDIENCE,
                    options={"require": ["exp", "sub", "tid", "jti"]},
                )
            except (jwt.PyJWTError, UnicodeError, ValueError) as error:
                refused = error
            else:
                return claims
        raise Unauthenticated(_REFUSED) from refused


def _keep(cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _CACHE:
        cache.popitem(last=False)


def role_names(roles: frozenset[int]) -> list[str]:
    """The roles as a token has them: `owner`, `viewer`."""
    return sorted(_NAMES[role] for role in roles)


def role_numbers(names: Sequence[object]) -> frozenset[int]:
    """Roles from a token; names that this version does not know count for nothing."""
    return frozenset(_NUMBERS[name] for name in names if isinstance(name, str) and name in _NUMBERS)


_NAMES: dict[int, str] = {
    number: name.removeprefix("ROLE_").lower() for name, number in Role.items() if number
}
_NUMBERS = {name: number for number, name in _NAMES.items()}
