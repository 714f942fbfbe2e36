"""Users of an installation, and the keys by which their tokens are known."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
from google.protobuf.json_format import MessageToDict
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from tests.bench.process import clean, started

_PASSWORD = "a long password"
_AT_ONCE = 4
_numbers = itertools.count()


@dataclass(frozen=True)
class Member:
    """Somebody who is logged in, alone in a tenant."""

    token: str
    email: str
    user_id: str
    tenant_id: str


@dataclass(frozen=True)
class Installation:
    """Every module in one process, without a gateway."""

    pid: int
    folder: Path
    socket: Path
    members: list[Member]
    jwks: Path


@asynccontextmanager
async def installation(
    folder: Path, members: int, settings: dict[str, str] | None = None
) -> AsyncIterator[Installation]:
    """Serve one with so many tenants of one user each."""
    environment = clean({"PLEXUS_DATA_DIR": str(folder), **(settings or {})})
    # The sockets' place is found as the process finds it.
    socket = folder / "run" / "plexus.sock"
    async with started("tests.bench.serving", "whole", environment=environment) as pid:
        jwks = folder / "jwks.json"
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub: Any = IdentityServiceStub(channel)
            keys = await stub.GetJwks(pb.GetJwksRequest())
            jwks.write_text(json.dumps(MessageToDict(keys)))
            places = asyncio.Semaphore(_AT_ONCE)
            found = await asyncio.gather(*(_sign_up(stub, places) for _ in range(members)))
        yield Installation(pid, folder, socket, found, jwks)


async def _sign_up(stub: Any, places: asyncio.Semaphore) -> Member:
    email = f"user{next(_numbers)}@example.com"
    async with places:
        await stub.RegisterUser(
            pb.RegisterUserRequest(email=email, password=_PASSWORD, display_name="Ada")
        )
        tokens = await stub.AuthenticateUser(
            pb.AuthenticateUserRequest(email=email, password=_PASSWORD)
        )
    claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
    return Member(tokens.access_token, email, claims["sub"], claims["tid"])
