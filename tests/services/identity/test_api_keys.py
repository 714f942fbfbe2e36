"""API keys and the audit log, through the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.options.v1.options_pb2 import Role

from services.identity.service import api_keys
from services.runtime import clock, paging
from services.runtime.clock import SECOND
from tests.services.identity.people import Identity, Person, bearer, claims, refusal

pytestmark = pytest.mark.asyncio(loop_scope="session")
DAY = timedelta(days=1)


def in_time(delta: timedelta) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + delta)
    return stamp


async def test_a_key_is_shown_once_and_calls_as_its_maker(identity: Identity) -> None:
    person = await identity.join()
    made = await identity.create_key(person.access_token, Role.ROLE_VIEWER, Role.ROLE_ADMIN)
    key = made.api_key
    assert key.api_key_id.startswith("key_") and key.user_id == person.user.user_id
    assert list(key.roles) == [Role.ROLE_VIEWER, Role.ROLE_ADMIN]
    life = key.expire_time.ToDatetime() - key.create_time.ToDatetime()
    assert timedelta(days=364, hours=23) < life <= timedelta(days=365)
    said = claims(made.token)
    assert said.pop("iat") // 10 == key.create_time.seconds // 10
    assert said == {
        **{"iss": "plexus", "aud": "plexus", "jti": key.api_key_id, "roles": ["admin", "viewer"]},
        **{"sub": person.user.user_id, "tid": person.user.tenant_id},
        "exp": key.expire_time.seconds,
    }
    assert await identity.profile(made.token) == person.user
    reply = await identity.stub.ListApiKeys(pb.ListApiKeysRequest(), metadata=bearer(made.token))
    assert list(reply.api_keys) == [key]
    for path in identity.data_dir.rglob("*"):
        assert not path.is_file() or made.token.encode() not in path.read_bytes()


async def test_a_key_may_what_its_maker_may_unless_told_less(identity: Identity) -> None:
    person = await identity.join()
    own = await identity.create_key(person.access_token)
    assert list(own.api_key.roles) == [Role.ROLE_OWNER]
    admin = (await identity.create_key(person.access_token, Role.ROLE_ADMIN)).token
    assert list((await identity.create_key(admin)).api_key.roles) == [Role.ROLE_ADMIN]
    refused = await refusal(identity.create_key(admin, Role.ROLE_OWNER))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "PERMISSION_DENIED",
    )
    assert refused.metadata == {"permission": "api_keys.write"}


async def test_a_role_is_what_a_key_may_do(identity: Identity) -> None:
    person = await identity.join()
    viewer = (await identity.create_key(person.access_token, Role.ROLE_VIEWER)).token
    member = (await identity.create_key(person.access_token, Role.ROLE_MEMBER)).token
    await identity.profile(viewer)
    update = pb.UpdateProfileRequest(display_name="Ada")
    await identity.stub.UpdateProfile(update, metadata=bearer(member))
    refused: dict[str, Awaitable[object]] = {
        "profile.write": identity.stub.UpdateProfile(update, metadata=bearer(viewer)),
        "api_keys.write": identity.create_key(member),
        "api_keys.read": identity.keys(member),
        "audit.read": identity.audit(member),
    }
    for permission, call in refused.items():
        outcome = await refusal(call)
        assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
        assert outcome.metadata == {"permission": permission}
    outcome = await refusal(identity.delete_key(member, "key_x"))
    assert outcome.metadata == {"permission": "api_keys.write"}


@pytest.mark.parametrize("life", [-DAY, 366 * 5 * DAY, 365 * 900 * DAY])
async def test_a_key_must_expire_within_five_years(identity: Identity, life: timedelta) -> None:
    person = await identity.join()
    refused = await refusal(identity.create_key(person.access_token, expire_time=in_time(life)))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert refused.fields == ["expire_time"]


async def test_a_key_may_live_for_five_years(identity: Identity) -> None:
    person = await identity.join()
    asked = in_time(365 * 5 * DAY)
    made = await identity.create_key(person.access_token, expire_time=asked)
    assert made.api_key.expire_time.seconds == asked.seconds


async def test_a_role_that_is_none_is_refused(identity: Identity) -> None:
    person = await identity.join()
    call = identity.create_key(person.access_token, Role.ROLE_UNSPECIFIED)
    assert (await refusal(call)).fields == ["roles[0]"]


async def test_a_deleted_key_is_refused_everywhere_within_a_second(identity: Identity) -> None:
    person = await identity.join()
    kept = await identity.create_key(person.access_token)
    made = await identity.create_key(person.access_token)
    await identity.profile(made.token)
    await identity.delete_key(person.access_token, made.api_key.api_key_id)
    assert (await identity.refused_within(made.token, 1.0)).reason == "UNAUTHENTICATED"
    assert await identity.keys(person.access_token) == [kept.api_key.api_key_id]
    assert await identity.profile(kept.token) == person.user


async def test_a_key_makes_no_successor_once_it_is_deleted(identity: Identity) -> None:
    person = await identity.join()
    made = await identity.create_key(person.access_token)
    # It calls before the news can have reached the verifier.
    await identity.delete_key(made.token, made.api_key.api_key_id)
    assert (await refusal(identity.create_key(made.token))).reason == "UNAUTHENTICATED"
    assert await identity.keys(person.access_token) == []


async def test_anothers_key_is_no_key(identity: Identity) -> None:
    person, thief = await identity.join(), await identity.join()
    key_id = (await identity.create_key(person.access_token)).api_key.api_key_id
    others = await refusal(identity.delete_key(thief.access_token, key_id))
    absent = await refusal(identity.delete_key(thief.access_token, "key_absent"))
    assert others == absent
    assert (others.code, others.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert others.metadata == {"resource": "api_key"}
    assert await identity.keys(thief.access_token) == []
    assert await identity.keys(person.access_token) == [key_id]
    await identity.delete_key(person.access_token, key_id)
    assert await refusal(identity.delete_key(person.access_token, key_id)) == absent


async def test_of_many_deletions_of_one_key_one_wins(identity: Identity) -> None:
    person = await identity.join()
    key_id = (await identity.create_key(person.access_token)).api_key.api_key_id
    outcomes = await asyncio.gather(
        *(identity.delete_key(person.access_token, key_id) for _ in range(10)),
        return_exceptions=True,
    )
    assert outcomes.count(None) == 1


@pytest.mark.parametrize(
    ("bound", "limit"),
    [("MAX_LIVE_API_KEYS", "api_keys"), ("MAX_UNEXPIRED_API_KEYS", "unexpired_api_keys")],
)
async def test_a_tenant_has_so_many_keys_and_no_more(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, bound: str, limit: str
) -> None:
    person, other = await identity.join(), await identity.join()
    monkeypatch.setattr(api_keys, bound, 3)
    outcomes = await asyncio.gather(
        *(identity.create_key(person.access_token) for _ in range(6)), return_exceptions=True
    )
    made = [each for each in outcomes if isinstance(each, pb.CreateApiKeyResponse)]
    assert len(made) == 3
    refused = await refusal(identity.create_key(person.access_token))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "LIMIT_REACHED",
    )
    assert refused.metadata == {"limit": limit}
    await identity.create_key(other.access_token)
    # Deleting makes room among the live ones, not among those that verifiers must remember.
    await identity.delete_key(person.access_token, made[0].api_key.api_key_id)
    if limit == "api_keys":
        await identity.create_key(person.access_token)
    else:
        assert (await refusal(identity.create_key(person.access_token))).metadata == {
            "limit": limit
        }


async def test_an_expired_key_is_neither_listed_nor_deleted(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await identity.join()
    made = await identity.create_key(person.access_token, expire_time=in_time(60 * DAY))
    later = clock.now() + 60 * 86_400 * SECOND
    monkeypatch.setattr(clock, "now", lambda: later)
    assert await identity.keys(person.access_token) == []
    call = identity.delete_key(person.access_token, made.api_key.api_key_id)
    assert (await refusal(call)).reason == "NOT_FOUND"


async def test_pages_of_keys_hold_every_key_once_newest_first(identity: Identity) -> None:
    person = await identity.join()
    made = [(await identity.create_key(person.access_token)).api_key.api_key_id for _ in range(5)]
    seen, token, pages = [], "", 0
    while pages == 0 or (token and pages < 9):
        reply = await identity.stub.ListApiKeys(
            pb.ListApiKeysRequest(page_size=2, page_token=token), metadata=person.metadata
        )
        seen += [key.api_key_id for key in reply.api_keys]
        token, pages = reply.next_page_token, pages + 1
    assert (seen, pages) == (made[::-1], 3)


@pytest.mark.parametrize(
    "token", ["nonsense", "é", paging.encode(("a", "b")), paging.encode((2**80, "a"))]
)
async def test_a_page_token_of_ones_own_making_is_refused(identity: Identity, token: str) -> None:
    person = await identity.join()
    for call in (
        identity.stub.ListApiKeys(
            pb.ListApiKeysRequest(page_token=token), metadata=person.metadata
        ),
        identity.stub.ListAuditEntries(
            pb.ListAuditEntriesRequest(page_token=token), metadata=person.metadata
        ),
    ):
        refused = await refusal(call)
        assert (refused.reason, refused.fields) == ("INVALID_REQUEST", ["page_token"])


async def tell(identity: Identity, person: Person) -> tuple[str, str, str]:
    """Do one of everything; the ids of the two keys, and of the request that made the first."""
    request = pb.CreateApiKeyRequest(display_name="a program")
    metadata = (*person.metadata, ("x-request-id", f"request-{person.user.user_id}"))
    first = await identity.stub.CreateApiKey(request, metadata=metadata)
    second = await identity.create_key(first.token)
    await identity.stub.UpdateProfile(
        pb.UpdateProfileRequest(display_name="Ada"), metadata=bearer(second.token)
    )
    await identity.delete_key(person.access_token, second.api_key.api_key_id)
    return first.api_key.api_key_id, second.api_key.api_key_id, f"request-{person.user.user_id}"


async def test_the_audit_log_says_who_did_what(identity: Identity) -> None:
    person, other = await identity.join(), await identity.join()
    first, second, request_id = await tell(identity, person)
    user = person.user.user_id
    assert await identity.audit(person.access_token) == [
        ("api_key.delete", user, second),
        ("user.update", second, user),
        ("api_key.create", first, second),
        ("api_key.create", user, first),
        ("user.login", user, user),
        ("user.register", "", user),
    ]
    reply = await identity.stub.ListAuditEntries(
        pb.ListAuditEntriesRequest(), metadata=person.metadata
    )
    entry = reply.audit_entries[3]
    assert entry.audit_entry_id.startswith("aud_") and entry.request_id == request_id
    assert abs(entry.time.seconds - clock.now() // SECOND) < 30
    assert [each[2] for each in await identity.audit(other.access_token)] == [
        other.user.user_id
    ] * 2


async def test_pages_of_the_audit_log_hold_every_entry_once(identity: Identity) -> None:
    person = await identity.join()
    await tell(identity, person)
    seen, token, pages = [], "", 0
    while pages == 0 or (token and pages < 9):
        reply = await identity.stub.ListAuditEntries(
            pb.ListAuditEntriesRequest(page_size=4, page_token=token), metadata=person.metadata
        )
        seen += [(each.action, each.actor_id, each.subject_id) for each in reply.audit_entries]
        token, pages = reply.next_page_token, pages + 1
    assert (seen, pages) == (await identity.audit(person.access_token), 2)


async def test_a_repeated_key_gives_the_same_reply(identity: Identity) -> None:
    person, key = await identity.join(), {"idempotency_key": "k1"}
    first, *again = await asyncio.gather(
        *(identity.create_key(person.access_token, **key) for _ in range(8))
    )
    assert all(each == first for each in again)
    assert await identity.keys(person.access_token) == [first.api_key.api_key_id]
    other = identity.create_key(person.access_token, Role.ROLE_VIEWER, **key)
    assert (await refusal(other)).reason == "IDEMPOTENCY_KEY_REUSED"
    # The key is the caller's own: somebody else's is another.
    stranger = await identity.join()
    theirs = await identity.create_key(stranger.access_token, **key)
    assert theirs.api_key.api_key_id != first.api_key.api_key_id
