"""A scripted gRPC server that stands for the modules, and for nothing else.

The gateway's tests need something behind Envoy that answers as they tell it: the real modules
have tests of their own. What it does is told by the ids and inputs of the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from plexus.agents.v1 import agent_pb2, agents_service_pb2, agents_service_pb2_grpc, run_pb2
from plexus.history.v1 import history_service_pb2, history_service_pb2_grpc, session_pb2
from plexus.identity.v1 import identity_service_pb2, identity_service_pb2_grpc, user_pb2
from plexus.ingest.v1 import document_pb2, document_service_pb2, document_service_pb2_grpc

from services.runtime.errors import ResourceExhausted
from services.runtime.status import abort
from services.runtime.strict_json import StrictJson
from tests.support import PORT_OF_ITS_OWN

Context = grpc.aio.ServicerContext[Any, Any]
OK, SLOW, MISSING, BROKEN, BUSY = "agt_ok", "slow", "missing", "broken", "busy"
# Inputs of Process: say three words, wait for a word from the test, break in the middle, hang.
WORDS, STEPS, BREAKS, HANGS, REFUSED = "words", "steps", "breaks", "hangs", "refused"


def not_found() -> status_pb2.Status:
    """An error as the modules make it."""
    info = error_details_pb2.ErrorInfo(
        reason="NOT_FOUND", domain="plexus", metadata={"resource": "agent"}
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    return status_pb2.Status(code=5, message='There is no such agent, "missing".', details=[packed])


def backend_at(path: Path, credentials: grpc.ServerCredentials | None = None) -> Backend:
    """A backend that will listen on a Unix socket; RPCs without a script are UNIMPLEMENTED.

    With credentials it listens on any port of TCP besides, and then on that one again.
    """
    # For the type checker alone they are abstract; the generated classes answer for them.
    return Backend(path, credentials)  # type: ignore[abstract]


class Backend(
    agents_service_pb2_grpc.AgentsServiceServicer,
    history_service_pb2_grpc.HistoryServiceServicer,
    identity_service_pb2_grpc.IdentityServiceServicer,
    document_service_pb2_grpc.DocumentServiceServicer,
):
    """The servicers of four modules on one socket, and the server that holds them."""

    def __init__(self, path: Path, credentials: grpc.ServerCredentials | None) -> None:
        self._path = path
        self.credentials = credentials
        self.port = 0
        self._server: grpc.aio.Server | None = None
        # The metadata of each call, by the name of its RPC, newest last.
        self.seen: list[tuple[str, dict[str, str]]] = []
        # How long each RPC was given when it was called last; None where it was not said.
        self.remaining: dict[str, float | None] = {}
        self.step = asyncio.Event()
        self.cancelled = 0
        self.failures_left = 0
        self.calls = 0

    async def start(self) -> None:
        """Listen."""
        server = grpc.aio.server(options=PORT_OF_ITS_OWN)
        agents_service_pb2_grpc.add_AgentsServiceServicer_to_server(self, server)
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server(self, server)
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(self, server)
        document_service_pb2_grpc.add_DocumentServiceServicer_to_server(self, server)
        checks = health.aio.HealthServicer()
        await checks.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        StrictJson().register(server)
        reflection.enable_server_reflection([health.SERVICE_NAME], server)
        server.add_insecure_port(f"unix:{self._path}")
        if self.credentials is not None:
            self.port = server.add_secure_port(f"127.0.0.1:{self.port}", self.credentials)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Vanish."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
        self._path.unlink(missing_ok=True)

    def last(self, name: str) -> dict[str, str]:
        """The metadata of the last call of an RPC."""
        return next(metadata for called, metadata in reversed(self.seen) if called == name)

    def _note(self, name: str, context: Context) -> None:
        pairs = context.invocation_metadata() or ()
        self.remaining[name] = context.time_remaining()
        self.seen.append((name, {key: str(value) for key, value in pairs}))

    async def _wait_for_ever(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def _fail(self, context: Context) -> None:
        status = not_found()
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(grpc.StatusCode.NOT_FOUND, status.message)

    async def GetAgent(  # noqa: N802
        self, request: agents_service_pb2.GetAgentRequest, context: Context
    ) -> agents_service_pb2.GetAgentResponse:
        self._note("GetAgent", context)
        self.calls += 1
        if self.failures_left > 0:
            self.failures_left -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if request.agent_id == MISSING:
            await self._fail(context)
        if request.agent_id == BUSY:
            await abort(context, ResourceExhausted("Not so fast.", retry_after=6.5))
        if request.agent_id == SLOW:
            await self._wait_for_ever()
        return agents_service_pb2.GetAgentResponse(agent=agent_pb2.Agent(agent_id=request.agent_id))

    async def ListAgents(  # noqa: N802
        self, request: agents_service_pb2.ListAgentsRequest, context: Context
    ) -> agents_service_pb2.ListAgentsResponse:
        self._note("ListAgents", context)
        return agents_service_pb2.ListAgentsResponse()

    async def GetRun(  # noqa: N802
        self, request: agents_service_pb2.GetRunRequest, context: Context
    ) -> agents_service_pb2.GetRunResponse:
        self._note("GetRun", context)
        return agents_service_pb2.GetRunResponse(run=run_pb2.Run(run_id=request.run_id))

    async def CancelRun(  # noqa: N802
        self, request: agents_service_pb2.CancelRunRequest, context: Context
    ) -> agents_service_pb2.CancelRunResponse:
        self._note("CancelRun", context)
        run = run_pb2.Run(run_id=request.run_id, state=run_pb2.RUN_STATE_CANCELLED)
        return agents_service_pb2.CancelRunResponse(run=run)

    async def SendDocument(  # noqa: N802
        self,
        request_iterator: AsyncIterator[document_service_pb2.SendDocumentRequest],
        context: Context,
    ) -> document_service_pb2.SendDocumentResponse:
        self._note("SendDocument", context)
        await context.send_initial_metadata(())  # as the runtime does
        size = sum([len(each.data) async for each in request_iterator])
        document = document_pb2.Document(size=size)
        return document_service_pb2.SendDocumentResponse(document=document)

    async def WatchRun(  # noqa: N802
        self, request: agents_service_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[run_pb2.RunEvent]:
        self._note("WatchRun", context)
        for sequence in range(request.after_sequence + 1, 4):
            yield run_pb2.RunEvent(
                sequence=sequence,
                run_id=request.run_id,
                text_delta=run_pb2.RunTextDelta(text=f"word {sequence}\n\ndata: "),
            )

    async def Process(  # noqa: N802
        self, request: agents_service_pb2.ProcessRequest, context: Context
    ) -> AsyncIterator[run_pb2.RunEvent]:
        self._note("Process", context)
        if request.input == REFUSED:
            await self._fail(context)
        if request.input == BUSY:
            await abort(context, ResourceExhausted("Not so fast.", retry_after=6.5))
        yield run_pb2.RunEvent(sequence=1, run_id="run_1", run_started=run_pb2.RunStarted())
        if request.input == BREAKS:
            await self._fail(context)
        if request.input == HANGS:
            await self._wait_for_ever()
        if request.input == STEPS:
            await self.step.wait()
        delta = run_pb2.RunTextDelta(text=request.input[:20])
        yield run_pb2.RunEvent(sequence=2, run_id="run_1", text_delta=delta)
        yield run_pb2.RunEvent(sequence=3, run_id="run_1", run_completed=run_pb2.RunCompleted())

    async def AppendMessage(  # noqa: N802
        self, request: history_service_pb2.AppendMessageRequest, context: Context
    ) -> history_service_pb2.AppendMessageResponse:
        self._note("AppendMessage", context)
        return history_service_pb2.AppendMessageResponse(message=session_pb2.Message())

    async def RegisterUser(  # noqa: N802
        self, request: identity_service_pb2.RegisterUserRequest, context: Context
    ) -> identity_service_pb2.RegisterUserResponse:
        self._note("RegisterUser", context)
        return identity_service_pb2.RegisterUserResponse(user=user_pb2.User(email=request.email))

    async def CreateApiKey(  # noqa: N802
        self, request: identity_service_pb2.CreateApiKeyRequest, context: Context
    ) -> identity_service_pb2.CreateApiKeyResponse:
        self._note("CreateApiKey", context)
        self.calls += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return identity_service_pb2.CreateApiKeyResponse()

    async def GetJwks(  # noqa: N802
        self, request: identity_service_pb2.GetJwksRequest, context: Context
    ) -> identity_service_pb2.GetJwksResponse:
        self._note("GetJwks", context)
        return identity_service_pb2.GetJwksResponse()
