"""Which tokens are believed, and the keys that sign them, through the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from plexus.identity.v1 import identity_service_pb2 as pb

from services.identity.domain import CLOCK_SKEW, ApiKey, published_keys
from services.identity.service.signing import SigningKeys
from services.identity.settings import IdentitySettings
from services.identity.store import signing_keys
from services.runtime import clock
from services.runtime.clock import SECOND
from services.runtime.crypto import MasterKey, MasterKeyError
from services.runtime.db import EVERYONE, Database
from tests.services.identity.people import Identity, Person, bearer, claims, refusal, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")
MASTER = MasterKey(b"m" * 32)
DAY = 86_400 * SECOND


def installation_key(identity: Identity) -> tuple[str, Ed25519PrivateKey]:
    """The key that signs, as only the holder of the master key can have it."""
    master = MasterKey.load(identity.data_dir / "master.key")
    ((kid, sealed),) = identity.sql("SELECT kid, sealed_private_key FROM identity_signing_keys")
    seed = master.open(sealed, f"identity/signing-key/{kid}")
    return kid, Ed25519PrivateKey.from_private_bytes(seed)


def resigned(identity: Identity, person: Person, **changes: object) -> str:
    """A person's token with other claims under the installation's own key; None takes one out."""
    kid, private = installation_key(identity)
    said = {**claims(person.access_token), **changes}
    payload = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(payload, private, algorithm="EdDSA", headers={"kid": kid})


async def test_the_forger_of_these_tests_can_make_a_good_token(identity: Identity) -> None:
    person = await identity.join()
    assert await identity.profile(resigned(identity, person, jti="tok_x")) == person.user


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1_700_000_000},
        {"exp": None},
        {"aud": "another"},
        {"aud": None},
        {"iss": "another"},
        {"iss": None},
        {"tid": None},
        {"sub": None},
        {"jti": None},
    ],
)
async def test_a_token_that_says_the_wrong_thing_is_refused(
    identity: Identity, changes: Mapping[str, object]
) -> None:
    person = await identity.join()
    refused = await refusal(identity.profile(resigned(identity, person, **changes)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_a_token_of_another_signer_is_refused(identity: Identity) -> None:
    person = await identity.join()
    kid, _ = installation_key(identity)
    said = claims(person.access_token)
    (published,) = (await identity.stub.GetJwks(pb.GetJwksRequest())).keys
    head, body, signature = person.access_token.split(".")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    other = jwt.encode({**said, "tid": "ten_other"}, "x" * 32, algorithm="HS256").split(".")
    forged = [
        jwt.encode(said, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": kid}),
        jwt.encode(said, Ed25519PrivateKey.generate(), algorithm="EdDSA"),
        jwt.encode(said, "", algorithm="none", headers={"kid": kid}),
        # The public key as a secret that everybody knows.
        jwt.encode(said, published.x.encode(), algorithm="HS256", headers={"kid": kid}),
        f"{head}.{body}.{flipped}",
        f"{head}.{other[1]}.{signature}",
        f"{head}.{body}.",
        "nonsense",
    ]
    for token in forged:
        assert (await refusal(identity.profile(token))).reason == "UNAUTHENTICATED"
    assert await identity.profile(person.access_token) == person.user


async def test_no_token_at_all_is_refused(identity: Identity) -> None:
    for metadata in ((), (("authorization", "Basic eDp5"),), bearer("")):
        call = identity.stub.GetProfile(pb.GetProfileRequest(), metadata=metadata)
        assert (await refusal(call)).reason == "UNAUTHENTICATED"


async def test_a_token_is_refused_once_it_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEXUS_ACCESS_TOKEN_SECONDS", "2")
    async with serving(tmp_path) as identity:
        person = await identity.join()
        # It was believed before, so this is what verifiers remember that must end.
        assert await identity.profile(person.access_token) == person.user
        assert (await identity.refused_within(person.access_token, 2.5)).reason == "UNAUTHENTICATED"


async def test_the_key_set_is_what_standard_libraries_take(identity: Identity) -> None:
    person = await identity.join()
    reply = await identity.stub.GetJwks(pb.GetJwksRequest())
    fields = ("kty", "crv", "kid", "x", "alg", "use")
    keys = jwt.PyJWKSet([{name: getattr(key, name) for name in fields} for key in reply.keys])
    header = jwt.get_unverified_header(person.access_token)
    assert header == {"alg": "EdDSA", "typ": "JWT", "kid": reply.keys[0].kid}
    assert (reply.keys[0].kty, reply.keys[0].use) == ("OKP", "sig")
    jwt.decode(person.access_token, keys[header["kid"]], algorithms=["EdDSA"], audience="plexus")


async def test_a_private_key_is_sealed_on_the_disk(identity: Identity) -> None:
    _, private = installation_key(identity)
    for path in identity.data_dir.rglob("*"):
        assert not path.is_file() or private.private_bytes_raw() not in path.read_bytes()


async def test_keys_are_replaced_while_tokens_of_the_old_one_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEXUS_SIGNING_KEY_DAYS", str(2.5 / 86_400))
    monkeypatch.setenv("PLEXUS_SIGNING_KEY_LEAD_SECONDS", "1")
    async with serving(tmp_path) as identity:
        person = await identity.join()
        api_key = (await identity.create_key(person.access_token)).token
        first = jwt.get_unverified_header(person.access_token)["kid"]
        assert await identity.key_ids() == [first]
        published: list[str] = []
        token = person.access_token
        async with asyncio.timeout(6):
            while jwt.get_unverified_header(token)["kid"] == first:
                published = await identity.key_ids()
                token = (await identity.log_in(person.email)).access_token
                await asyncio.sleep(0.1)
        # The key was there for all to fetch before it first signed, and the old one is still.
        assert published[0] == first
        assert jwt.get_unverified_header(token)["kid"] in published[1:]
        assert first in await identity.key_ids()
        for each in (token, person.access_token, api_key):
            assert await identity.profile(each) == person.user


async def test_a_restart_goes_on_with_the_same_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as identity:
        person = await identity.join()
        before = await identity.key_ids()
    async with serving(tmp_path) as identity:
        assert await identity.key_ids() == before
        assert await identity.profile(person.access_token) == person.user


async def test_another_master_key_is_told_at_the_start(tmp_path: Path) -> None:
    async with serving(tmp_path):
        pass
    (tmp_path / "master.key").unlink()
    with pytest.raises(MasterKeyError, match="does not open identity/signing-key"):
        async with serving(tmp_path):
            pass


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.time = clock.now()
        patch.setattr(clock, "now", lambda: self.time)


def keys_of(database: Database) -> SigningKeys:
    return SigningKeys(database, MASTER, IdentitySettings())


@pytest.mark.asyncio(loop_scope="function")
async def test_two_processes_do_not_both_rotate(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Clock(monkeypatch)
    processes = [keys_of(database) for _ in range(5)]
    for _ in range(3):
        await asyncio.gather(*(each.rotate() for each in processes))
        time.time += 30 * DAY
    async with database.read(EVERYONE) as connection:
        keys = await signing_keys.every(connection)
    # The first has no token about any more.
    assert [key.generation for key in keys] == [2, 3]


@pytest.mark.asyncio(loop_scope="function")
async def test_an_old_key_is_published_until_its_last_token_expires(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Clock(monkeypatch)
    keys = keys_of(database)
    await keys.rotate()
    (first,) = await keys.published()
    begun = time.time
    time.time = begun + 30 * DAY - int(timedelta(hours=1).total_seconds()) * SECOND
    await keys.rotate()
    assert [key.kid for key in await keys.published()][:1] == [first.kid]
    last_signed = begun + 30 * DAY
    # Its last token is made just before the next key's time, and lives for 15 minutes.
    time.time = last_signed + 900 * SECOND
    await keys.rotate()
    assert first.kid in [key.kid for key in await keys.published()]
    async with database.read(EVERYONE) as connection:
        assert not (await signing_keys.every(connection))[0].sealed_private_key
    time.time += CLOCK_SKEW
    assert first.kid not in [key.kid for key in await keys.published()]
    await keys.rotate()
    async with database.read(EVERYONE) as connection:
        left = await signing_keys.every(connection)
    assert [key.generation for key in left] == [2]
    assert published_keys(left, time.time) == left


@pytest.mark.asyncio(loop_scope="function")
async def test_a_key_is_published_as_long_as_an_api_key_that_it_signed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Clock(monkeypatch)
    keys = keys_of(database)
    await keys.rotate()
    (first,) = await keys.published()
    expire_time = time.time + 365 * DAY
    for days in (365, 1):
        api_key = ApiKey(
            *("key_1", "ten_1", "usr_1", "a program"),
            roles=frozenset({1}),
            create_time=time.time,
            expire_time=time.time + days * DAY,
        )
        async with database.transaction(EVERYONE) as connection:
            await keys.api_key_token(connection, api_key)
    for _ in range(13):
        assert first.kid in [key.kid for key in await keys.published()]
        time.time = min(time.time + 30 * DAY, expire_time)
        await keys.rotate()
    time.time = expire_time + CLOCK_SKEW
    await keys.rotate()
    assert first.kid not in [key.kid for key in await keys.published()]


async def test_a_lead_longer_than_a_keys_life_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLEXUS_SIGNING_KEY_DAYS", "0.01")
    with pytest.raises(ValueError, match="PLEXUS_SIGNING_KEY_LEAD_SECONDS"):
        IdentitySettings()
