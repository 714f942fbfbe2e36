"""Logging in, guessing, and refresh tokens, through the real server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import argon2
import grpc
import pytest
from argon2 import PasswordHasher

from services.runtime import clock
from services.runtime.clock import SECOND
from tests.services.identity.people import (
    PASSWORD,
    Identity,
    claims,
    decode,
    new_email,
    refusal,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")
Pass = Callable[[float], None]


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords were verified against."""
    seen: list[str] = []
    verify = PasswordHasher.verify

    def record(self: PasswordHasher, hash: str | bytes, password: str | bytes) -> bool:  # noqa: A002
        seen.append(str(hash))
        return verify(self, hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", record)
    return seen


@pytest.fixture
def let_pass(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pass]:
    """Stops the clock and sets it forward by seconds."""
    # Some minutes ago, so that tokens made after the wait are not from the future.
    time = [clock.now() - 300 * SECOND]
    monkeypatch.setattr(clock, "now", lambda: time[0])

    def forward(seconds: float) -> None:
        time[0] += int(seconds * SECOND)

    yield forward


async def fail(identity: Identity, email: str, times: int) -> None:
    for _ in range(times):
        refused = await refusal(identity.log_in(email, "a wrong guess"))
        assert refused.reason == "BAD_CREDENTIALS"


async def test_a_login_gives_tokens_that_say_who_calls(identity: Identity) -> None:
    email = new_email()
    user = await identity.register(email)
    before = clock.now() // SECOND
    tokens = await identity.log_in(f" {email.upper()} ")
    assert (tokens.token_type, tokens.expires_in) == ("Bearer", 900)
    said = claims(tokens.access_token)
    assert said["iat"] - before in (0, 1)
    assert said["exp"] - said["iat"] == 900
    assert said.pop("iat") and said.pop("exp")
    assert said.pop("jti").startswith("tok_") and said.pop("sid").startswith("lgn_")
    assert said == {
        **{"iss": "plexus", "aud": "plexus", "roles": ["owner"]},
        **{"sub": user.user_id, "tid": user.tenant_id},
    }
    assert await identity.profile(tokens.access_token) == user


async def test_an_unknown_email_is_refused_like_a_wrong_password(
    identity: Identity, verified: list[str]
) -> None:
    email = new_email()
    await identity.register(email)
    wrong = await refusal(identity.log_in(email, "a wrong guess"))
    unknown = await refusal(identity.log_in(new_email(), "a wrong guess"))
    assert wrong == unknown
    assert (wrong.code, wrong.reason) == (grpc.StatusCode.UNAUTHENTICATED, "BAD_CREDENTIALS")
    # Both took a verification, of hashes that cost the same.
    parameters = [argon2.extract_parameters(each) for each in verified]
    assert len(parameters) == 2 and parameters[0] == parameters[1]
    assert verified[0] != verified[1]


async def test_the_dummy_hash_lets_nobody_in(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argon2.PasswordHasher, "verify", lambda *_: True)
    refused = await refusal(identity.log_in(new_email(), PASSWORD))
    assert refused.reason == "BAD_CREDENTIALS"


@pytest.mark.parametrize("known", [True, False])
async def test_guessing_slows_down_the_same_for_known_and_unknown(
    identity: Identity, let_pass: Pass, verified: list[str], known: bool
) -> None:
    email = new_email()
    if known:
        await identity.register(email)
    await fail(identity, email, 5)
    for wait in (1, 2, 4, 8):
        count = len(verified)
        refused = await refusal(identity.log_in(email.upper(), PASSWORD))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (refused.reason, refused.retry_after) == ("TOO_MANY_ATTEMPTS", wait)
        # It was not even looked at the password.
        assert len(verified) == count
        let_pass(wait)
        await fail(identity, email, 1)


async def test_a_success_after_the_wait_starts_anew(identity: Identity, let_pass: Pass) -> None:
    email = new_email()
    await identity.register(email)
    await fail(identity, email, 5)
    assert (await refusal(identity.log_in(email))).reason == "TOO_MANY_ATTEMPTS"
    let_pass(1)
    await identity.log_in(email)
    await fail(identity, email, 4)
    let_pass(1)
    tokens = await identity.log_in(email)
    log = await identity.audit(tokens.access_token)
    assert [action for action, _, _ in log] == [
        *("user.login", "user.login_failed"),
        *("user.login", "user.login_failed", "user.register"),
    ]


async def test_many_guesses_at_once_count_one_by_one(
    identity: Identity, verified: list[str]
) -> None:
    email = new_email()
    outcomes = await asyncio.gather(
        *(refusal(identity.log_in(email, f"guess number {n}")) for n in range(20))
    )
    reasons = [each.reason for each in outcomes]
    assert reasons.count("BAD_CREDENTIALS") == 5
    assert reasons.count("TOO_MANY_ATTEMPTS") == 15
    assert len(verified) == 5


async def test_many_right_logins_at_once_all_succeed(identity: Identity) -> None:
    email = new_email()
    await identity.register(email)
    tokens = await asyncio.gather(*(identity.log_in(email) for _ in range(20)))
    assert len({each.refresh_token for each in tokens}) == 20


async def test_waiting_survives_a_restart(tmp_path: Path, let_pass: Pass) -> None:
    email = new_email()
    async with serving(tmp_path) as identity:
        await fail(identity, email, 5)
        ((key,),) = identity.sql("SELECT email_key FROM identity_login_failures")
        assert key not in (email, hashlib.sha256(email.encode()).hexdigest())
    async with serving(tmp_path) as identity:
        assert (await refusal(identity.log_in(email))).reason == "TOO_MANY_ATTEMPTS"
        let_pass(1)
        await fail(identity, email, 1)


async def test_a_weaker_hash_is_replaced_at_the_next_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = new_email()
    async with serving(tmp_path) as identity:
        await identity.register(email)
    monkeypatch.setenv("PLEXUS_ARGON2_MEMORY_KIB", "16")
    async with serving(tmp_path) as identity:
        for _ in range(2):
            await identity.log_in(email)
            ((kept,),) = identity.sql("SELECT password_hash FROM identity_users")
            assert "m=16," in kept


async def test_a_refresh_token_buys_new_tokens_of_the_same_login(identity: Identity) -> None:
    person = await identity.join()
    fresh = await identity.refresh(person.refresh_token)
    assert (fresh.token_type, fresh.expires_in) == ("Bearer", 900)
    before, after = claims(person.access_token), claims(fresh.access_token)
    assert after["sid"] == before["sid"] and after["jti"] != before["jti"]
    assert await identity.profile(fresh.access_token) == person.user
    assert fresh.refresh_token != person.refresh_token
    await identity.refresh(fresh.refresh_token)


async def test_a_refresh_token_is_kept_as_a_hash_alone(identity: Identity) -> None:
    person = await identity.join()
    for path in identity.data_dir.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert person.refresh_token.encode() not in content
        assert person.access_token.encode() not in content


async def test_a_made_up_refresh_token_is_refused(identity: Identity) -> None:
    refused = await refusal(identity.refresh("made up"))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "BAD_REFRESH_TOKEN",
    )


async def test_a_spent_refresh_token_ends_its_login_and_no_other(identity: Identity) -> None:
    person = await identity.join()
    other = await identity.log_in(person.email)
    fresh = await identity.refresh(person.refresh_token)
    refused = await refusal(identity.refresh(person.refresh_token))
    assert refused == await refusal(identity.refresh("made up"))
    # The thief's or the owner's: both refresh tokens and both access tokens are at an end.
    assert (await refusal(identity.refresh(fresh.refresh_token))).reason == "BAD_REFRESH_TOKEN"
    for token in (person.access_token, fresh.access_token):
        assert (await identity.refused_within(token, 1.0)).reason == "UNAUTHENTICATED"
    assert await identity.profile(other.access_token) == person.user
    await identity.refresh(other.refresh_token)
    log = await identity.audit(other.access_token)
    assert log[0] == ("token.reuse", "", claims(person.access_token)["sid"])
    assert [action for action, _, _ in log].count("token.reuse") == 1


async def test_of_many_refreshes_of_one_token_at_most_one_wins(identity: Identity) -> None:
    person = await identity.join()
    outcomes = await asyncio.gather(
        *(identity.refresh(person.refresh_token) for _ in range(20)), return_exceptions=True
    )
    refused = [decode(e).reason for e in outcomes if isinstance(e, grpc.aio.AioRpcError)]
    assert len(refused) >= 19 and set(refused) == {"BAD_REFRESH_TOKEN"}


async def test_an_expired_refresh_token_is_refused_without_ending_its_login(
    identity: Identity, let_pass: Pass
) -> None:
    person = await identity.join()
    let_pass(30 * 86_400)
    assert (await refusal(identity.refresh(person.refresh_token))).reason == "BAD_REFRESH_TOKEN"
    sid = claims(person.access_token)["sid"]
    query = "SELECT 1 FROM identity_revocations WHERE credential_id = ?"
    assert identity.sql(query, sid) == []
