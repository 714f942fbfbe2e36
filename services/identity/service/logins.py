"""Logging in with a password, and staying logged in with refresh tokens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from weakref import WeakValueDictionary

from services.identity import store
from services.identity.domain import (
    CLOCK_SKEW,
    SECOND,
    Account,
    Action,
    BadCredentials,
    BadRefreshToken,
    LoginFailures,
    RefreshToken,
    Revocation,
    Tokens,
    User,
    check_backoff,
    normalise_email,
)
from services.identity.service.audit import record
from services.identity.service.passwords import Passwords, Verdict
from services.identity.service.revocations import TOPIC
from services.identity.service.signing import SigningKeys
from services.identity.settings import IdentitySettings
from services.runtime import clock
from services.runtime.crypto import MasterKey
from services.runtime.db import EVERYONE, Connection, Database
from services.runtime.ids import new_id
from services.runtime.shared import Notices

_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt to log in, and what there is to judge it by."""

    email_key: str
    password: str
    account: Account | None
    failures: LoginFailures | None


class Logins:
    """Checks passwords, and trades refresh tokens."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        signing: SigningKeys,
        master_key: MasterKey,
        settings: IdentitySettings,
        notices: Notices,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._signing = signing
        self._notices = notices
        self._failure_key = master_key.derive("identity/login-failures")
        self._access_seconds = settings.access_token_seconds
        self._refresh_seconds = settings.refresh_token_seconds
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def authenticate(self, email: str, password: str) -> Tokens:
        """Log in.

        Raises:
            BadCredentials: The e-mail and the password do not belong together.
            TooManyAttempts: They did not too often; it is not even looked at them.
            ResourceExhausted: Too many passwords are being checked.
        """
        address = normalise_email(email)
        email_key = hmac.new(self._failure_key, address.encode(), hashlib.sha256).hexdigest()
        # One at a time for each e-mail: of many guesses at once, each must count before the next.
        turn = self._turns.setdefault(email_key, asyncio.Lock())
        async with turn:
            attempt = await self._begin(email_key, address, password)
            known = attempt.account.password_hash if attempt.account else None
            verdict = await self._passwords.verify(known, password)
            if attempt.account is None or not verdict.matches:
                async with self._database.transaction(()) as connection:
                    await store.login_failures.add(connection, email_key, clock.now())
                raise BadCredentials
            return await self._admit(attempt, attempt.account, verdict)

    async def _begin(self, email_key: str, address: str, password: str) -> _Attempt:
        now = clock.now()
        # Who logs in has no tenant yet.
        async with self._database.read(EVERYONE) as connection:
            failures = await store.login_failures.get(connection, email_key, now)
            account = await store.users.by_email(connection, address)
        check_backoff(failures, now)
        return _Attempt(email_key, password, account, failures)

    async def _admit(self, attempt: _Attempt, account: Account, verdict: Verdict) -> Tokens:
        better = await self._passwords.hash(attempt.password) if verdict.outdated else None
        user = account.user
        async with self._database.transaction((user.tenant_id,)) as connection:
            if better is not None:
                await store.users.replace_hash(connection, account, better)
            if attempt.failures is not None:
                await store.login_failures.clear(connection, attempt.email_key)
                # Written now and not as it failed: an attempt must not take longer where there is
                # an account, and a log that strangers can fill is no log.
                await record(
                    connection,
                    Action.USER_LOGIN_FAILED,
                    tenant_id=user.tenant_id,
                    subject_id=user.user_id,
                    time=attempt.failures.last_time,
                )
            await record(
                connection,
                Action.USER_LOGIN,
                tenant_id=user.tenant_id,
                subject_id=user.user_id,
                actor=user.user_id,
            )
            return await self._issue(connection, user, new_id("lgn"))

    async def refresh(self, refresh_token: str) -> Tokens:
        """Spend a refresh token.

        Raises:
            BadRefreshToken: It is unknown, expired or spent. If spent, its login is at an end.
        """
        token_hash = hashlib.sha256(refresh_token.encode()).hexdigest()
        async with self._database.read(EVERYONE) as connection:
            known = await store.refresh_tokens.is_known(connection, token_hash)
        # What somebody made up does not get to wait for the writer.
        tokens = await self._spend(token_hash) if known else None
        if tokens is None:
            raise BadRefreshToken
        return tokens

    async def _spend(self, token_hash: str) -> Tokens | None:
        """New tokens; None, committed, where the token is refused and its login may be ended."""
        now = clock.now()
        async with self._database.transaction(EVERYONE) as connection:
            token = await store.refresh_tokens.spend(connection, token_hash, now)
            if token is not None:
                user = await store.users.get(connection, token.tenant_id, token.user_id)
                return await self._issue(connection, user, token.login_id) if user else None
            reused = await store.refresh_tokens.spent(connection, token_hash)
            if reused is not None:
                await self._end_login(connection, reused, now)
        if reused is not None:
            await self._notices.publish(TOPIC)
        return None

    async def _end_login(self, connection: Connection, token: RefreshToken, now: int) -> None:
        await store.refresh_tokens.delete_login(connection, token.tenant_id, token.login_id)
        last_token = now + self._access_seconds * SECOND + CLOCK_SKEW
        await store.revocations.add(connection, Revocation(token.login_id, last_token))
        await record(
            connection,
            Action.TOKEN_REUSE,
            tenant_id=token.tenant_id,
            subject_id=token.login_id,
        )

    async def _issue(self, connection: Connection, user: User, login_id: str) -> Tokens:
        refresh_token = secrets.token_urlsafe(_TOKEN_BYTES)
        await store.refresh_tokens.add(
            connection,
            RefreshToken(
                token_hash=hashlib.sha256(refresh_token.encode()).hexdigest(),
                login_id=login_id,
                tenant_id=user.tenant_id,
                user_id=user.user_id,
                expire_time=clock.now() + self._refresh_seconds * SECOND,
            ),
        )
        access_token = await self._signing.access_token(connection, user, login_id)
        return Tokens(access_token, refresh_token, self._access_seconds)
