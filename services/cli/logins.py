"""Making an account and logging in."""

from __future__ import annotations

from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from plexus.identity.v1.user_pb2 import User

from services.cli.client import Client, deadlines


async def log_in(client: Client, email: str, password: str, display_name: str | None) -> User:
    """Log in and keep the login; with a display name, make the account first.

    Raises:
        Failure: The login cannot be kept.
        AioRpcError: The installation refused.
    """
    stub = IdentityServiceStub(client.channel)
    limits = deadlines("identity")
    if display_name is not None:
        await stub.RegisterUser(
            pb.RegisterUserRequest(email=email, password=password, display_name=display_name),
            timeout=limits["RegisterUser"],
        )
    token = await client.log_in(email, password)
    reply = await stub.GetProfile(
        pb.GetProfileRequest(),
        timeout=limits["GetProfile"],
        metadata=(("authorization", f"Bearer {token}"),),
    )
    return reply.user
