"""What callers do wrong gets a clear error and harms nothing."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.options.v1.options_pb2 import Role

from services.runtime.errors import InvalidRequest, PermissionDenied, PlexusError, Unauthenticated
from tests.e2e.callers import Caller, Rest
from tests.e2e.conftest import new_email, sign_up

IDENTITY = "identity.v1.IdentityService"
INTERNALS = ("Traceback", "sqlalchemy", "sqlite", "upstream", ".py", "envoy", "grpc::", "proto")


async def refused(reply: aiohttp.ClientResponse, status: int, reason: str) -> dict[str, Any]:
    """The error that every refusal is: a google.rpc.Status in JSON that shows no internals."""
    text = await reply.text()
    assert reply.status == status, text
    assert reply.content_type == "application/json"
    assert reply.headers["x-request-id"]
    body: dict[str, Any] = json.loads(text)
    info = next(each for each in body["details"] if each["@type"].endswith("ErrorInfo"))
    assert (info["reason"], info["domain"]) == (reason, "plexus")
    assert isinstance(body["code"], int)
    assert body["message"]
    assert not [word for word in INTERNALS if word in body["message"]]
    return body


async def test_a_wrong_password_looks_like_an_unknown_email(caller: Caller) -> None:
    registered = await sign_up(caller)
    caller.token = ""
    seen = []
    for email in (registered.user.email, "nobody@example.com"):
        with pytest.raises(Unauthenticated) as caught:
            await caller.unary(
                f"{IDENTITY}/AuthenticateUser",
                identity.AuthenticateUserRequest(email=email, password="wrong password"),
                identity.AuthenticateUserResponse,
            )
        seen.append((caught.value.reason, caught.value.message, str(caught.value.metadata)))
    assert seen[0] == seen[1]
    assert seen[0][0] == "BAD_CREDENTIALS"


def forged(token: str, **changes: object) -> str:
    """A token with other claims, signed by a key that nobody trusts."""
    claims = jwt.decode(token, options={"verify_signature": False})
    headers = {"kid": jwt.get_unverified_header(token)["kid"]}
    key = Ed25519PrivateKey.generate()
    return jwt.encode({**claims, **changes}, key, algorithm="EdDSA", headers=headers)


def unsigned(token: str) -> str:
    """The same claims under the algorithm "none"."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    return f"{header}.{token.split('.')[1]}."


@pytest.mark.parametrize("how", ["none", "garbage", "forged", "unsigned", "cut", "basic"])
async def test_a_credential_that_proves_nothing(rest: Rest, how: str) -> None:
    await sign_up(rest)
    good = rest.token
    headers = {
        "none": {},
        "garbage": {"authorization": "Bearer x.y.z"},
        "forged": {"authorization": f"Bearer {forged(good, tid='ten_other')}"},
        "unsigned": {"authorization": f"Bearer {unsigned(good)}"},
        "cut": {"authorization": f"Bearer {good[:-10]}"},
        "basic": {"authorization": "Basic YTpi"},
    }[how]
    rest.token = ""
    async with rest.request("GET", "/v1/users/profile", headers=headers) as reply:
        await refused(reply, 401, "UNAUTHENTICATED")


async def test_the_same_without_the_edge_before_it(caller: Caller) -> None:
    for token in ("", "x.y.z"):
        caller.token = token
        with pytest.raises(Unauthenticated):
            await caller.unary(
                f"{IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
            )


async def test_every_violation_is_named(caller: Caller) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await caller.unary(
            f"{IDENTITY}/RegisterUser",
            identity.RegisterUserRequest(email="no email", password="short"),
            identity.RegisterUserResponse,
        )
    assert {each.field for each in caught.value.violations} == {
        "email",
        "password",
        "display_name",
    }
    assert "short" not in str(caught.value.violations)
    await sign_up(caller)
    for text in ("", "x" * 100_001):
        with pytest.raises(InvalidRequest) as caught:
            async for _ in caller.stream(
                "agents.v1.AgentsService/Process",
                agents.ProcessRequest(input=text),
                run_pb2.RunEvent,
            ):
                pass
        assert [each.field for each in caught.value.violations] == ["input"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ('{"input": "cut', 400, "INVALID_REQUEST"),
        ('{"input": 7}', 400, "INVALID_REQUEST"),
        ("[]", 400, "INVALID_REQUEST"),
        ("\x00\xff", 400, "INVALID_REQUEST"),
        ('{"input": "' + "x" * 5_000_000 + '"}', 413, "BODY_TOO_LARGE"),
    ],
    ids=["cut", "type", "array", "bytes", "large"],
)
async def test_a_body_that_is_none(rest: Rest, body: str, status: int, reason: str) -> None:
    await sign_up(rest)
    async with rest.request("POST", "/v1/agents/process", data=io.BytesIO(body.encode())) as reply:
        await refused(reply, status, reason)


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/nothing", 404, "UNKNOWN_METHOD"),
        ("GET", "/", 404, "UNKNOWN_METHOD"),
        ("DELETE", "/v1/users/profile", 405, "UNKNOWN_METHOD"),
        ("POST", "/plexus.history.v1.HistoryService/AppendMessage", 404, "UNKNOWN_METHOD"),
        ("GET", "/v1/runs/run_1/events/more", 404, "UNKNOWN_METHOD"),
        ("GET", "/v1/runs/run_absent", 404, "NOT_FOUND"),
        ("GET", "/v1/runs/" + "x" * 65, 400, "INVALID_REQUEST"),
        ("GET", "/v1/sessions?page_size=1000", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sessions?page_token=zzz", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sessions?page_size=many", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sessions?nothing=1", 400, "INVALID_REQUEST"),
    ],
)
async def test_paths_that_lead_nowhere(
    rest: Rest, method: str, path: str, status: int, reason: str
) -> None:
    await sign_up(rest)
    async with rest.request(method, path) as reply:
        await refused(reply, status, reason)


@pytest.mark.parametrize("caller", ["grpc", "grpc-web"], indirect=True)
async def test_what_is_internal_cannot_be_reached(caller: Caller) -> None:
    await sign_up(caller)
    with pytest.raises(PlexusError):
        await caller.unary(
            f"{IDENTITY}/WatchRevocations",
            identity.WatchRevocationsRequest(),
            identity.WatchRevocationsResponse,
        )


async def test_nobody_can_claim_to_be_the_mesh(rest: Rest) -> None:
    async with rest.request(
        "GET", "/v1/users/profile", headers={"x-plexus-assertion": "anything"}
    ) as reply:
        await refused(reply, 401, "UNAUTHENTICATED")


async def test_a_key_holds_no_more_than_its_maker(rest: Rest) -> None:
    await sign_up(rest)
    made = await rest.unary(
        f"{IDENTITY}/CreateApiKey",
        identity.CreateApiKeyRequest(display_name="admin", roles=[Role.ROLE_ADMIN]),
        identity.CreateApiKeyResponse,
    )
    rest.token = made.token
    with pytest.raises(PermissionDenied):
        await rest.unary(
            f"{IDENTITY}/CreateApiKey",
            identity.CreateApiKeyRequest(display_name="owner", roles=[Role.ROLE_OWNER]),
            identity.CreateApiKeyResponse,
        )


async def test_an_email_is_taken_once(caller: Caller) -> None:
    email = new_email()
    request = identity.RegisterUserRequest(email=email, password="long enough", display_name="A")
    await caller.unary(f"{IDENTITY}/RegisterUser", request, identity.RegisterUserResponse)
    request.email = email.upper()
    with pytest.raises(PlexusError) as taken:
        await caller.unary(f"{IDENTITY}/RegisterUser", request, identity.RegisterUserResponse)
    assert taken.value.reason == "EMAIL_TAKEN"
