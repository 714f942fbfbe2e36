"""Making accounts and changing them, through the real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from argon2 import PasswordHasher
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.options.v1.options_pb2 import Role

from tests.services.identity.people import (
    PASSWORD,
    Identity,
    decode,
    new_email,
    refusal,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_account_founds_a_tenant_and_owns_it(identity: Identity) -> None:
    email = new_email()
    user = await identity.register(email.upper())
    assert user.user_id.startswith("usr_") and user.tenant_id.startswith("ten_")
    assert (user.email, user.display_name, user.etag) == (email, "Somebody", "1")
    assert list(user.roles) == [Role.ROLE_OWNER]
    other = await identity.register(new_email())
    assert other.tenant_id != user.tenant_id


async def test_an_email_has_one_account_whatever_its_case(identity: Identity) -> None:
    email = new_email()
    await identity.register(email)
    refused = await refusal(identity.register(email.upper()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN")


async def test_of_many_who_register_one_email_at_once_one_wins(identity: Identity) -> None:
    email = new_email()
    outcomes = await asyncio.gather(
        *(identity.register(email) for _ in range(20)), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert len(refused) == 19
    assert {decode(each).reason for each in refused} == {"EMAIL_TAKEN"}
    assert len(identity.sql("SELECT 1 FROM identity_users WHERE email = ?", email)) == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.RegisterUserRequest(email="nobody", password=PASSWORD, display_name="A"), "email"),
        (pb.RegisterUserRequest(email="a@b.org", password="short", display_name="A"), "password"),
        (pb.RegisterUserRequest(email="a@b.org", password=PASSWORD), "display_name"),
    ],
)
async def test_what_breaks_the_contract_is_refused(
    identity: Identity, request_: pb.RegisterUserRequest, field: str
) -> None:
    refused = await refusal(identity.stub.RegisterUser(request_))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_a_password_is_kept_as_a_hash_alone(identity: Identity) -> None:
    password = "Never to be seen on a disk 4711"
    email = new_email()
    await identity.register(email, password)
    ((kept,),) = identity.sql("SELECT password_hash FROM identity_users WHERE email = ?", email)
    assert kept.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    for path in identity.data_dir.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes()


async def test_a_closed_installation_lets_its_first_user_in_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEXUS_REGISTRATION", "closed")
    async with serving(tmp_path) as identity:
        outcomes = await asyncio.gather(
            *(identity.register(new_email()) for _ in range(5)), return_exceptions=True
        )
        refused = [decode(e) for e in outcomes if isinstance(e, grpc.aio.AioRpcError)]
        assert len(refused) == 4
        # Now that it is certain, no password is hashed for those who do not get in.
        monkeypatch.delattr(PasswordHasher, "hash")
        refused.append(await refusal(identity.register(new_email())))
        for each in refused:
            assert each.code is grpc.StatusCode.FAILED_PRECONDITION
            assert each.reason == "REGISTRATION_CLOSED"


async def test_a_user_sees_their_own_account(identity: Identity) -> None:
    person, other = await identity.join(), await identity.join()
    assert await identity.profile(person.access_token) == person.user
    assert await identity.profile(other.access_token) == other.user


async def test_an_update_changes_what_is_set(identity: Identity) -> None:
    person = await identity.join()
    reply = await identity.stub.UpdateProfile(
        pb.UpdateProfileRequest(display_name="Ada", etag=person.user.etag),
        metadata=person.metadata,
    )
    assert (reply.user.display_name, reply.user.etag) == ("Ada", "2")
    assert await identity.profile(person.access_token) == reply.user
    nothing = await identity.stub.UpdateProfile(pb.UpdateProfileRequest(), metadata=person.metadata)
    assert nothing.user == reply.user


async def test_a_stale_etag_is_refused_and_a_repeated_update_is_not(identity: Identity) -> None:
    person = await identity.join()
    first = pb.UpdateProfileRequest(display_name="Ada", etag=person.user.etag)
    done = await identity.stub.UpdateProfile(first, metadata=person.metadata)
    again = await identity.stub.UpdateProfile(first, metadata=person.metadata)
    assert again == done
    stale = pb.UpdateProfileRequest(display_name="Grace", etag=person.user.etag)
    refused = await refusal(identity.stub.UpdateProfile(stale, metadata=person.metadata))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await identity.profile(person.access_token)).display_name == "Ada"
    forced = pb.UpdateProfileRequest(display_name="Grace")
    assert (await identity.stub.UpdateProfile(forced, metadata=person.metadata)).user.etag == "3"
    actions = [action for action, _, _ in await identity.audit(person.access_token)]
    assert actions.count("user.update") == 2


async def test_of_many_updates_from_one_etag_one_wins(identity: Identity) -> None:
    person = await identity.join()
    outcomes = await asyncio.gather(
        *(
            identity.stub.UpdateProfile(
                pb.UpdateProfileRequest(display_name=f"Name {n}", etag="1"),
                metadata=person.metadata,
            )
            for n in range(10)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, pb.UpdateProfileResponse) for each in outcomes) == 1


async def test_the_mesh_itself_has_no_account(identity: Identity) -> None:
    refused = await refusal(identity.mesh.GetProfile(pb.GetProfileRequest()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert refused.metadata == {"resource": "user"}
