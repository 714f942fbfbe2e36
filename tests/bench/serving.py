"""What is measured, each in a process of its own: `python -m tests.bench.serving <kind> …`.

bare: grpc.aio and nothing else. contract: the same servicer behind everything that the runtime
does for an RPC. whole: every module, as `plexus up` serves them, without the gateway.
"""

from __future__ import annotations

# isort: off
# Before grpc: reading the settings also tells grpc how to start.
from services.runtime.settings import Settings
# isort: on

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1 import identity_service_pb2_grpc, user_pb2
from plexus.options.v1.options_pb2 import Role

from services import launch
from services.app import serve
from services.runtime import log
from services.runtime.contract import module_methods
from services.runtime.credentials import MeshSigner, TokenVerifier
from services.runtime.server import Server
from services.runtime.strict_json import StrictJson
from services.runtime.topology import Address
from tests.bench.trust import FixedTrust


class Answering(identity_service_pb2_grpc.IdentityServiceServicer):
    """Answers UpdateProfile from the request: what remains is the cost of the call."""

    async def UpdateProfile(  # noqa: N802
        self, request: pb.UpdateProfileRequest, context: Any
    ) -> pb.UpdateProfileResponse:
        """See the contract."""
        user = user_pb2.User(
            user_id="usr_01jd3x0qk4y6x9v2z8w7m5n3p1",
            tenant_id="ten_01jd3x0qk4y6x9v2z8w7m5n3p2",
            email="ada@example.com",
            display_name=request.display_name,
            roles=[Role.ROLE_OWNER],
            create_time=Timestamp(seconds=1_760_000_000, nanos=123_456_000),
            etag="7",
        )
        return pb.UpdateProfileResponse(user=user)


def _answering() -> Answering:
    # For the type checker alone it is abstract.
    return Answering()  # type: ignore[abstract]


async def _bare(socket: Path, stop: asyncio.Event) -> None:
    server = grpc.aio.server()
    identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(_answering(), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    launch.say("ready")
    await stop.wait()
    await server.stop(0)


async def _contract(socket: Path, jwks: Path, stop: asyncio.Event) -> None:
    mesh = MeshSigner(b"0" * 32)
    server = Server(module_methods("identity"), TokenVerifier(FixedTrust(jwks)), mesh)
    StrictJson().register(server.grpc)
    identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(_answering(), server.grpc)
    await server.start(Address(path=socket), {})
    await server.check_health()
    launch.say("ready")
    await stop.wait()
    await server.stop(0)


async def _whole(settings: Settings, stop: asyncio.Event) -> None:
    async with serve(settings) as server:
        while not await server.check_health():
            await asyncio.sleep(0.02)
        launch.say("ready")
        await stop.wait()


async def _run(settings: Settings, stop: asyncio.Event) -> None:
    kind, *rest = sys.argv[1:]
    match kind:
        case "bare":
            await _bare(Path(rest[0]), stop)
        case "contract":
            await _contract(Path(rest[0]), Path(rest[1]), stop)
        case _:
            await _whole(settings, stop)


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    launch.prepare(settings)
    log.configure(settings.log_level, settings.directory / "logs" / "plexus.log")
    launch.run(_run, settings)


if __name__ == "__main__":
    main()
