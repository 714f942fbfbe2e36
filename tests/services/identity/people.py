"""Those who call identity in tests, over a Unix socket, and what they are refused with."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from plexus.identity.v1.user_pb2 import User
from plexus.options.v1.options_pb2 import Role

from services.runtime.server import Server
from tests.support import Served, served, settings_in

CHEAP_HASHING = {
    "PLEXUS_ARGON2_MEMORY_KIB": "8",
    "PLEXUS_ARGON2_PASSES": "1",
    "PLEXUS_ARGON2_LANES": "1",
}
PASSWORD = "correct horse battery"
_numbers = itertools.count(1)
Metadata = Sequence[tuple[str, str]]


def new_email() -> str:
    return f"person{next(_numbers)}@example.org"


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def claims(token: str) -> dict[str, Any]:
    """What a token says, believed."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


@dataclass(frozen=True)
class Refusal:
    """An error as a caller sees it."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    fields: list[str]
    retry_after: int | None


async def refusal(call: Awaitable[object]) -> Refusal:
    """The error that a call must end with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return decode(raised.value)


def decode(error: grpc.aio.AioRpcError) -> Refusal:
    trailing = dict(error.trailing_metadata() or ())
    packed = trailing["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    has_retry = False
    for detail in Status.FromString(packed).details:
        has_retry |= detail.Unpack(retry)
        _ = detail.Unpack(info) or detail.Unpack(bad)
    assert info.domain == "plexus"
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=[each.field for each in bad.field_violations],
        retry_after=retry.retry_delay.seconds if has_retry else None,
    )


@dataclass(frozen=True)
class Person:
    """Somebody with an account who has logged in."""

    email: str
    user: User
    access_token: str
    refresh_token: str

    @property
    def metadata(self) -> Metadata:
        return bearer(self.access_token)


@dataclass(frozen=True)
class Identity:
    """The module as callers and as other modules reach it."""

    served: Served
    stub: IdentityServiceStub
    mesh: IdentityServiceStub
    data_dir: Path = field(repr=False)

    async def register(self, email: str, password: str = PASSWORD) -> User:
        reply = await self.stub.RegisterUser(
            pb.RegisterUserRequest(email=email, password=password, display_name="Somebody")
        )
        return reply.user

    async def log_in(self, email: str, password: str = PASSWORD) -> pb.AuthenticateUserResponse:
        return await self.stub.AuthenticateUser(
            pb.AuthenticateUserRequest(email=email, password=password)
        )

    async def refresh(self, token: str) -> pb.RefreshTokenResponse:
        return await self.stub.RefreshToken(pb.RefreshTokenRequest(refresh_token=token))

    async def join(self) -> Person:
        """Register somebody new and log them in."""
        email = new_email()
        user = await self.register(email)
        tokens = await self.log_in(email)
        return Person(email, user, tokens.access_token, tokens.refresh_token)

    async def profile(self, token: str) -> User:
        return (await self.stub.GetProfile(pb.GetProfileRequest(), metadata=bearer(token))).user

    async def create_key(
        self, token: str, *roles: Role.ValueType, **values: Any
    ) -> pb.CreateApiKeyResponse:
        request = pb.CreateApiKeyRequest(display_name="a program", roles=roles, **values)
        return await self.stub.CreateApiKey(request, metadata=bearer(token))

    async def keys(self, token: str) -> list[str]:
        reply = await self.stub.ListApiKeys(pb.ListApiKeysRequest(), metadata=bearer(token))
        return [key.api_key_id for key in reply.api_keys]

    async def delete_key(self, token: str, api_key_id: str) -> None:
        request = pb.DeleteApiKeyRequest(api_key_id=api_key_id)
        await self.stub.DeleteApiKey(request, metadata=bearer(token))

    async def audit(self, token: str) -> list[tuple[str, str, str]]:
        """(action, actor, subject), newest first."""
        reply = await self.stub.ListAuditEntries(
            pb.ListAuditEntriesRequest(page_size=100), metadata=bearer(token)
        )
        return [(each.action, each.actor_id, each.subject_id) for each in reply.audit_entries]

    async def key_ids(self) -> list[str]:
        return [key.kid for key in (await self.stub.GetJwks(pb.GetJwksRequest())).keys]

    async def refused_within(self, token: str, seconds: float) -> Refusal:
        """The error with which a token is refused, once that is known everywhere."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.profile(token)
                except grpc.aio.AioRpcError as error:
                    return decode(error)
                await asyncio.sleep(0.02)

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What is on the disk."""
        connection = sqlite3.connect(self.data_dir / "plexus.db")
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()


@asynccontextmanager
async def serving(data_dir: Path, **values: object) -> AsyncIterator[Identity]:
    """identity, once it believes credentials."""
    settings = settings_in(data_dir, **values)
    async with (
        served(settings, ["identity"]) as modules,
        grpc.aio.insecure_channel(f"unix:{settings.socket}") as channel,
    ):
        mesh = IdentityServiceStub(modules.clients.channel("identity"))
        await until(lambda: _hears_revocations(modules.server))
        yield Identity(modules, IdentityServiceStub(channel), mesh, settings.directory)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def _hears_revocations(server: Server) -> bool:
    return await server._passes("identity", server._checks["plexus.identity.v1.IdentityService"])
