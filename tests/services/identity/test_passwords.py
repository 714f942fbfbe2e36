"""Passwords are hashed away from the loop, and only so many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import argon2
import pytest
import pytest_asyncio

from services.identity.service.passwords import Passwords
from services.runtime.errors import ResourceExhausted

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Blocking(argon2.PasswordHasher):
    """Hashes when it is let."""

    gate = threading.Event()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        assert self.gate.wait(10)
        return super().hash(password, salt=salt)


@pytest_asyncio.fixture
async def passwords() -> AsyncIterator[Passwords]:
    made = await Passwords.start(CHEAP)
    yield made
    made.close()


async def test_a_hash_is_argon2id_and_fits_its_password_alone(passwords: Passwords) -> None:
    kept = await passwords.hash("caf\u00e9 au lait")
    assert kept.startswith("$argon2id$")
    assert (await passwords.verify(kept, "cafe\u0301 au lait")).matches
    assert not (await passwords.verify(kept, "Caf\u00e9 au lait")).matches
    assert not (await passwords.verify(None, "caf\u00e9 au lait")).matches


async def test_a_weaker_hash_is_told(passwords: Passwords) -> None:
    stronger = await Passwords.start(
        argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    )
    kept = await passwords.hash("a password")
    assert not (await passwords.verify(kept, "a password")).outdated
    assert (await stronger.verify(kept, "a password")).outdated
    stronger.close()


async def test_too_many_at_once_are_refused_and_the_loop_goes_on() -> None:
    hasher = Blocking(time_cost=1, memory_cost=8, parallelism=1)
    passwords = Passwords(hasher, CHEAP.hash("nobody's"), max_waiting=3)
    hasher.gate.clear()
    jobs = [asyncio.create_task(passwords.hash("a password")) for _ in range(5)]
    await asyncio.sleep(0.05)
    with pytest.raises(ResourceExhausted) as raised:
        await passwords.hash("one too many")
    assert raised.value.retry_after
    assert raised.value.metadata == {"limit": "password_checks"}
    # One that gives up while it waits makes room; one that is being hashed does not.
    jobs[4].cancel()
    jobs[0].cancel()
    await asyncio.sleep(0.05)
    again = asyncio.create_task(passwords.hash("a password"))
    await asyncio.sleep(0.05)
    with pytest.raises(ResourceExhausted):
        await passwords.hash("one too many")
    hasher.gate.set()
    done = await asyncio.gather(*jobs, again, return_exceptions=True)
    assert [isinstance(each, str) for each in done] == [False, True, True, True, False, True]
    await asyncio.sleep(0.05)
    assert await passwords.hash("a password")
    passwords.close()
