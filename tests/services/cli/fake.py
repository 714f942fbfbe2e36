"""A scripted installation: what stands in these tests for a gateway with its modules behind it.

It is a real grpc.aio server on a TCP port with the generated servicers, and beside it the answer
of the gateway to `/healthz` on a port of its own, since one gRPC server does not speak HTTP/1. It
keeps the rules that the command line relies on: passwords are checked, an access token is known or
refused, a refresh token is spent by its use and ends the login when used again, a run has the
events of its script and each stream of it starts behind `after_sequence`. How calls break is told
by the tests.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from plexus.agents.v1 import agent_pb2, run_pb2
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1.agents_service_pb2_grpc import (
    AgentsServiceServicer,
    add_AgentsServiceServicer_to_server,
)
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.identity.v1 import user_pb2
from plexus.identity.v1.identity_service_pb2_grpc import (
    IdentityServiceServicer,
    add_IdentityServiceServicer_to_server,
)
from plexus.monitor.v1 import monitor_service_pb2 as monitor
from plexus.monitor.v1.monitor_service_pb2_grpc import (
    MonitorServiceServicer,
    add_MonitorServiceServicer_to_server,
)

from tests.support import PORT_OF_ITS_OWN

Context = grpc.aio.ServicerContext[Any, Any]
MODULES = (
    *("agents", "context", "history", "identity", "ingest", "interop"),
    *("llm", "memory", "monitor"),
)
EMAIL, PASSWORD = "ann@example.com", "correct horse"


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *details: Any,
    **metadata: str,
) -> None:
    """End a call as the runtime does: with a google.rpc.Status."""
    status = Status(code=code.value[0], message=message)
    info = ErrorInfo(reason=reason, domain="plexus", metadata=metadata)
    for detail in (info, *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, message, trailing_metadata=trailers)


def script(*pieces: str, **end: Any) -> list[run_pb2.RunEvent]:
    """A run's events: it starts, says each piece, and ends as told, else completes."""
    bodies: list[dict[str, Any]] = [
        {"run_started": run_pb2.RunStarted(session_id="ses_1", agent_id="agt_1")},
        *({"text_delta": run_pb2.RunTextDelta(text=piece)} for piece in pieces),
        end or {"run_completed": run_pb2.RunCompleted(message_id="msg_1")},
    ]
    return [
        run_pb2.RunEvent(sequence=number, run_id="run_1", **body)
        for number, body in enumerate(bodies, start=1)
    ]


class Fake(IdentityServiceServicer, AgentsServiceServicer, MonitorServiceServicer):
    """The modules that the command line calls by name, and what was asked of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.requests: list[Any] = []
        self.tokens: set[str] = set()
        self.refresh_tokens: dict[str, bool] = {}
        self.users = {EMAIL: PASSWORD}
        self.expires_in = 900
        self.refresh_delay = 0.0
        self.health = dict.fromkeys(MODULES, monitor.MODULE_STATUS_SERVING)
        self.details: dict[str, str] = {}
        self.changes: asyncio.Queue[monitor.WatchHealthResponse] = asyncio.Queue()
        self.run = script("Hel", "lo", ".")
        # Called before each event of a stream is sent: (RPC, number of its call, event).
        self.before: Callable[[str, int, run_pb2.RunEvent], Any] = lambda *_: None
        self.cancelled = asyncio.Event()
        self.url = ""
        self._numbers = itertools.count(1)
        self._http_status = b"200 OK", b"ok\n"

    # The installation.

    async def start(self) -> None:
        """Serve gRPC, and HTTP/1 on the same port by telling the two apart."""
        self._server = grpc.aio.server(options=PORT_OF_ITS_OWN)
        add_IdentityServiceServicer_to_server(self, self._server)
        add_AgentsServiceServicer_to_server(self, self._server)
        add_MonitorServiceServicer_to_server(self, self._server)
        self._grpc_port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._front = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._front.sockets[0].getsockname()[1]}"
        self._pipes: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Vanish."""
        self._front.close()
        self.drop()
        await self._server.stop(0)
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def drop(self) -> None:
        """Cut every connection, as a gateway that dies does."""
        for pipe in self._pipes:
            pipe.cancel()

    def unwell(self) -> None:
        """From now on `/healthz` says that something behind the gateway does not serve."""
        self._http_status = b"503 Service Unavailable", b"unavailable\n"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            first = await reader.read(65536)
            if first.startswith(b"GET /healthz"):
                status, body = self._http_status
                length = b"content-length: %d" % len(body)
                writer.write(b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, length, body))
                await writer.drain()
            elif first:
                await self._pipe(first, reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._pipes.discard(task)
            writer.close()

    async def _pipe(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._grpc_port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while piece := await source.read(65536):
                target.write(piece)
                await target.drain()
            target.close()

        inner_writer.write(first)
        try:
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        finally:
            inner_writer.transport.abort()

    def expire(self) -> None:
        """Forget every access token, as time does."""
        self.tokens.clear()

    async def _begin(
        self, name: str, request: Any, context: Context, *, public: bool = False
    ) -> None:
        self.calls.append(name)
        self.requests.append(request)
        sent = dict(context.invocation_metadata() or ()).get("authorization")
        if public:
            assert sent is None, f"{name} is public and was sent a token"
        elif str(sent).removeprefix("Bearer ") not in self.tokens:
            await refuse(
                context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "A token is required."
            )

    # Identity.

    def _tokens(self) -> dict[str, Any]:
        number = next(self._numbers)
        self.tokens.add(f"access-{number}")
        self.refresh_tokens[f"refresh-{number}"] = True
        return {
            "access_token": f"access-{number}",
            "refresh_token": f"refresh-{number}",
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        }

    async def RegisterUser(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("RegisterUser", request, context, public=True)
        if request.email in self.users:
            await refuse(context, grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN", "It is taken.")
        if len(request.password) < 8:
            wrong = BadRequest.FieldViolation(field="password", description="is too short")
            bad = BadRequest(field_violations=[wrong])
            code = grpc.StatusCode.INVALID_ARGUMENT
            await refuse(context, code, "INVALID_REQUEST", "The request is not valid.", bad)
        self.users[request.email] = request.password
        return identity.RegisterUserResponse(user=user_pb2.User(email=request.email))

    async def AuthenticateUser(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("AuthenticateUser", request, context, public=True)
        if request.password == "too often":
            retry = RetryInfo(retry_delay=Duration(seconds=30))
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await refuse(context, code, "TOO_MANY_ATTEMPTS", "Too many attempts.", retry)
        if self.users.get(request.email) != request.password:
            code = grpc.StatusCode.UNAUTHENTICATED
            await refuse(context, code, "BAD_CREDENTIALS", "They do not belong together.")
        return identity.AuthenticateUserResponse(**self._tokens())

    async def RefreshToken(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("RefreshToken", request, context, public=True)
        await asyncio.sleep(self.refresh_delay)
        if not self.refresh_tokens.get(request.refresh_token):
            # A spent one ends the login: nothing of it is good any more.
            self.tokens.clear()
            self.refresh_tokens.clear()
            code = grpc.StatusCode.UNAUTHENTICATED
            await refuse(context, code, "BAD_REFRESH_TOKEN", "The refresh token is spent.")
        self.refresh_tokens[request.refresh_token] = False
        return identity.RefreshTokenResponse(**self._tokens())

    async def GetProfile(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("GetProfile", request, context)
        return identity.GetProfileResponse(user=user_pb2.User(email=EMAIL, display_name="Ann"))

    async def GetJwks(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("GetJwks", request, context, public=True)
        return identity.GetJwksResponse(keys=[user_pb2.Jwk(kid="kid_1")])

    # Agents.

    async def ListAgents(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("ListAgents", request, context)
        return agents.ListAgentsResponse(agents=[agent_pb2.Agent(agent_id="agt_1")])

    async def GetRun(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("GetRun", request, context)
        code = grpc.StatusCode.NOT_FOUND
        await refuse(context, code, "NOT_FOUND", "There is no such run.", resource="run")

    async def CancelRun(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._begin("CancelRun", request, context)
        self.cancelled.set()
        run = run_pb2.Run(run_id=request.run_id, state=run_pb2.RUN_STATE_CANCELLED)
        return agents.CancelRunResponse(run=run)

    async def Process(  # noqa: N802
        self, request: Any, context: Context
    ) -> AsyncIterator[run_pb2.RunEvent]:
        await self._begin("Process", request, context)
        async for event in self._events("Process", 0):
            yield event

    async def WatchRun(  # noqa: N802
        self, request: Any, context: Context
    ) -> AsyncIterator[run_pb2.RunEvent]:
        await self._begin("WatchRun", request, context)
        assert request.run_id == "run_1"
        async for event in self._events("WatchRun", request.after_sequence):
            yield event

    async def _events(self, name: str, after: int) -> AsyncIterator[run_pb2.RunEvent]:
        number = self.calls.count(name)
        for event in self.run[after:]:
            if await _done(self.before(name, number, event)):
                return
            yield event

    # Monitor.

    async def WatchHealth(  # noqa: N802
        self, request: Any, context: Context
    ) -> AsyncIterator[monitor.WatchHealthResponse]:
        await self._begin("WatchHealth", request, context)
        for name, status in self.health.items():
            detail = self.details.get(name, "")
            yield monitor.WatchHealthResponse(module_name=name, status=status, detail=detail)
        while True:
            yield await self.changes.get()


async def _done(result: Any) -> bool:
    """Whether the hook wants the stream to end here."""
    return bool(await result) if asyncio.iscoroutine(result) else bool(result)
