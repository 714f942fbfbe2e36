"""Hashing passwords with argon2id (RFC 9106), away from the event loop and only so much at once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError

from services.identity.domain import normalise_password
from services.runtime.errors import ResourceExhausted

Result = TypeVar("Result")
_THREADS = 2
# At 50 ms each these are served within a second.
_MAX_WAITING = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password is right, and whether its hash is weaker than it should be."""

    matches: bool
    outdated: bool = False


class Passwords:
    """Hashes and verifies, two at a time; each takes tens of milliseconds and of megabytes."""

    def __init__(
        self, hasher: argon2.PasswordHasher, dummy: str, max_waiting: int = _MAX_WAITING
    ) -> None:
        """See `start`.

        Args:
            hasher: Knows the parameters.
            dummy: A hash of a password that nobody has, under the same parameters.
            max_waiting: How many may wait for a thread.
        """
        self._hasher = hasher
        self._dummy = dummy
        self._max = max_waiting + _THREADS
        self._under_way = 0
        self._executor = ThreadPoolExecutor(_THREADS, "identity-passwords")

    @classmethod
    async def start(cls, hasher: argon2.PasswordHasher) -> Passwords:
        """Prepare to hash with these parameters."""
        dummy = await asyncio.to_thread(hasher.hash, secrets.token_urlsafe())
        return cls(hasher, dummy)

    def close(self) -> None:
        """Let no more begin."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """A hash to keep.

        Raises:
            ResourceExhausted: Too many wait already.
        """
        return await self._run(lambda: self._hasher.hash(normalise_password(password)))

    async def verify(self, password_hash: str | None, password: str) -> Verdict:
        """Whether a password belongs to a hash; without one it takes as long to say no.

        Raises:
            ResourceExhausted: Too many wait already.
        """
        return await self._run(lambda: self._verify(password_hash, normalise_password(password)))

    def _verify(self, password_hash: str | None, password: str) -> Verdict:
        try:
            self._hasher.verify(password_hash or self._dummy, password)
        except VerifyMismatchError:
            return Verdict(matches=False)
        if password_hash is None:
            return Verdict(matches=False)
        return Verdict(matches=True, outdated=self._hasher.check_needs_rehash(password_hash))

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._under_way >= self._max:
            raise ResourceExhausted(
                "Too many passwords are being checked. Try again.",
                metadata={"limit": "password_checks"},
                retry_after=1,
            )
        loop = asyncio.get_running_loop()
        job = self._executor.submit(work)
        self._under_way += 1
        # Counts until the thread is free: a caller that gave up does not end what it began.
        job.add_done_callback(lambda done: self._ended(loop, done))
        return await asyncio.wrap_future(job)

    def _ended(self, loop: asyncio.AbstractEventLoop, _: Future[Result]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._free)

    def _free(self) -> None:
        self._under_way -= 1
