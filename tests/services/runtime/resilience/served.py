"""A real server with every policy around one RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
from plexus.history.v1 import history_service_pb2 as pb
from plexus.options.v1.options_pb2 import Role

from services.runtime.context import Principal
from services.runtime.contract import module_methods
from services.runtime.credentials import MeshSigner, TokenVerifier
from services.runtime.resilience.shedding import Admission
from services.runtime.server import Server
from services.runtime.topology import Address

GET = pb.GetSessionRequest(session_id="ses_1")
SIGNER = MeshSigner(b"m" * 32)


class Tokens(TokenVerifier):
    """Believes that a token is its tenant's name, so that a test needs no keys."""

    def __init__(self) -> None:
        super().__init__(_Trust())

    async def verify(self, token: str) -> Principal:
        return Principal(token, "usr_1", "tok_1", frozenset({Role.ROLE_OWNER}))


class _Trust:
    async def key(self, kid: str) -> jwt.PyJWK | None:
        return None

    def revoked(self, credential_ids: Sequence[str]) -> bool:
        return False


class Sessions:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.calls = 0

    async def get_session(self, request: Any, context: Any) -> Any:
        self.calls += 1
        await self.go.wait()
        return pb.GetSessionResponse()


@asynccontextmanager
async def serving(
    address: Address, admission: Admission | None = None, tls: Path | None = None
) -> AsyncIterator[tuple[Server, Sessions]]:
    server = Server(module_methods("history"), Tokens(), SIGNER, admission)
    sessions = Sessions()
    handler = grpc.unary_unary_rpc_method_handler(
        sessions.get_session,
        pb.GetSessionRequest.FromString,
        pb.GetSessionResponse.SerializeToString,
    )
    server.grpc.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "plexus.history.v1.HistoryService", {"GetSession": handler}
            )
        ]
    )
    await server.start(address, {}, tls)
    try:
        yield server, sessions
    finally:
        sessions.go.set()
        await server.stop(0)
