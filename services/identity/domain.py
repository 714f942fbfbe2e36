"""What identity is about, its rules and its errors. Times are microseconds since 1970."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)

SECOND = 1_000_000
DAY = 86_400 * SECOND
API_KEY_PREFIX = "key"
API_KEY_LIFE = 365 * DAY
# Five years by the calendar hold one or two leap days.
MAX_API_KEY_LIFE = (5 * 365 + 2) * DAY
MAX_LIVE_API_KEYS = 1_000
# Every revoked key stays in each verifier's memory until it expires: someone who makes and deletes
# keys in a loop must meet a bound.
MAX_UNEXPIRED_API_KEYS = 10_000
# The failure from which on an e-mail has to wait, and the longest wait.
FIRST_PUNISHED_FAILURE = 5
MAX_BACKOFF_SECONDS = 900
# A run of failures is forgotten when nothing was added to it for so long.
FAILURES_KEPT = DAY
MAX_FAILURE_ROWS = 100_000
# How far clocks of replicas and verifiers may be apart.
CLOCK_SKEW = 60 * SECOND


class Action(StrEnum):
    """What the audit log tells of."""

    USER_REGISTER = "user.register"
    USER_LOGIN = "user.login"
    USER_LOGIN_FAILED = "user.login_failed"
    USER_UPDATE = "user.update"
    TOKEN_REUSE = "token.reuse"  # noqa: S105 - the name of an action
    API_KEY_CREATE = "api_key.create"
    API_KEY_DELETE = "api_key.delete"


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account; `version` grows with every change."""

    user_id: str
    tenant_id: str
    email: str
    display_name: str
    roles: frozenset[int]
    create_time: int
    version: int

    @property
    def etag(self) -> str:
        """The version as callers see it."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Account:
    """A user and what their password is verified with."""

    user: User
    password_hash: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A long-lived credential, without its token."""

    api_key_id: str
    tenant_id: str
    user_id: str
    display_name: str
    roles: frozenset[int]
    create_time: int
    expire_time: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done."""

    audit_entry_id: str
    tenant_id: str
    time: int
    action: str
    actor_id: str
    subject_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token by its hash; `login_id` is the family, the `sid` of its access tokens."""

    token_hash: str
    login_id: str
    tenant_id: str
    user_id: str
    expire_time: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login or a refresh gives out."""

    access_token: str
    refresh_token: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """A credential that is refused until it would have expired anyway."""

    credential_id: str
    expire_time: int


@dataclass(frozen=True, slots=True)
class LoginFailures:
    """The failed logins with one e-mail since the last success."""

    count: int
    last_time: int
    blocked_until: int


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs tokens from `sign_from` until the next one's.

    Attributes:
        generation: 1, 2, 3 …; no two keys share one, so two processes cannot both rotate.
        public_key: 32 bytes, base64url without padding.
        sealed_private_key: Empty once its successor signs.
        publish_until: When the last token it is known to have signed expires.
    """

    kid: str
    generation: int
    public_key: str
    sealed_private_key: bytes
    sign_from: int
    publish_until: int


class EmailTaken(AlreadyExists):
    """Somebody has this e-mail already."""

    default_reason = "EMAIL_TAKEN"

    def __init__(self) -> None:
        super().__init__("There is an account with this e-mail already. Log in instead.")


class RegistrationClosed(FailedPrecondition):
    """No accounts are made here."""

    default_reason = "REGISTRATION_CLOSED"

    def __init__(self) -> None:
        super().__init__("Registration is closed on this installation. Ask its operator.")


class BadCredentials(Unauthenticated):
    """The same whether the e-mail is unknown or the password wrong."""

    default_reason = "BAD_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("The e-mail and the password do not belong together.")


class TooManyAttempts(ResourceExhausted):
    """Wait before the next attempt."""

    default_reason = "TOO_MANY_ATTEMPTS"

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(
            f"Too many failed attempts. Try again in {wait_seconds} s.", retry_after=wait_seconds
        )


class BadRefreshToken(Unauthenticated):
    """Unknown, spent or expired: one error for all."""

    default_reason = "BAD_REFRESH_TOKEN"

    def __init__(self) -> None:
        super().__init__("The refresh token is unknown, spent or expired. Log in again.")


class StaleEtag(Aborted):
    """Somebody changed it since it was read."""

    default_reason = "STALE_ETAG"

    def __init__(self) -> None:
        super().__init__("It changed since the etag was read. Read it and try again.")


class TooManyApiKeys(ResourceExhausted):
    """A tenant's bound on API keys."""

    def __init__(self, limit: str, bound: int) -> None:
        super().__init__(
            f"The tenant has {bound:,} API keys, which is the most it can have.",
            metadata={"limit": limit},
        )


def normalise_email(email: str) -> str:
    """The form in which e-mails are kept and compared."""
    return email.strip().casefold()


def normalise_password(password: str) -> str:
    """The same bytes for the same text, whatever keyboard it was typed on (NIST SP 800-63B)."""
    return unicodedata.normalize("NFKC", password)


def backoff_seconds(failures: int) -> int:
    """How long an e-mail waits after so many failures in a row: 1 s from the 5th, then doubling."""
    if failures < FIRST_PUNISHED_FAILURE:
        return 0
    doublings = min(failures - FIRST_PUNISHED_FAILURE, MAX_BACKOFF_SECONDS.bit_length())
    return int(min(2**doublings, MAX_BACKOFF_SECONDS))


def check_backoff(failures: LoginFailures | None, now: int) -> None:
    """Whether an attempt may be made now.

    Raises:
        TooManyAttempts: Not yet.
    """
    if failures is not None and failures.blocked_until > now:
        raise TooManyAttempts(math.ceil((failures.blocked_until - now) / SECOND))


def api_key_expiry(asked: int | None, now: int) -> int:
    """When a new API key expires, in whole seconds since that is what its token can say.

    Raises:
        InvalidRequest: Not in the future, or too far in it.
    """
    expire_time = now + API_KEY_LIFE if asked is None else asked
    if not now < expire_time <= now + MAX_API_KEY_LIFE:
        raise InvalidRequest.field("expire_time", "must be in the future, at most five years on")
    return expire_time // SECOND * SECOND


def api_key_roles(asked: frozenset[int], own: frozenset[int]) -> frozenset[int]:
    """The roles of a new API key: what was asked for, or the caller's own.

    Raises:
        PermissionDenied: One of them is above the caller's highest.
    """
    if max(asked, default=0) > max(own, default=0):
        raise PermissionDenied(
            "An API key cannot have a role above your own.",
            metadata={"permission": "api_keys.write"},
        )
    return asked or own


def update_is_done(user: User, display_name: str | None, etag: str) -> bool:
    """Whether an update leaves everything as it is.

    A caller whose reply was lost sends the update again with the etag it read before the first:
    that is not a stale etag but work that is done.

    Raises:
        StaleEtag: Somebody else changed the user since the etag was read.
    """
    if display_name is None or display_name == user.display_name:
        repeated = display_name is not None and etag == str(user.version - 1)
        if etag in ("", user.etag) or repeated:
            return True
    if etag not in ("", user.etag):
        raise StaleEtag
    return False


def signing_key_at(keys: Sequence[SigningKey], now: int) -> SigningKey | None:
    """The key that signs at a time, of those that have their private parts, the newest last.

    Where the clock was set back before every key's time, the oldest does: better than none.
    """
    able = [key for key in keys if key.sealed_private_key]
    begun = [key for key in able if key.sign_from <= now]
    return begun[-1] if begun else next(iter(able), None)


def published_keys(keys: Sequence[SigningKey], now: int) -> list[SigningKey]:
    """The keys that verifiers need: the one that signs, those to come, those with tokens about."""
    current = signing_key_at(keys, now)
    return [
        key
        for key in keys
        if key.publish_until > now or (current and key.generation >= current.generation)
    ]


def next_key_signs_from(keys: Sequence[SigningKey], now: int, period: int, lead: int) -> int | None:
    """From when a key that must be made now will sign; None while there is none to make.

    The first signs at once. Each later one is made `lead` before it is due, so that every verifier
    knows it by then; after a long stop it is due later rather than published too short.
    """
    if signing_key_at(keys, now) is None:
        return now
    due = keys[-1].sign_from + period
    return None if now < due - lead else max(due, now + lead)
