"""gRPC and gRPC-Web through the real Envoy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.agents.v1 import run_pb2
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub
from plexus.history.v1 import history_service_pb2
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub

from gateway.routes import STREAM_GRACE_SECONDS
from tests.gateway import grpcweb
from tests.gateway.conftest import BODY_BYTES, SHORT, Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")
SERVICE = "/plexus.agents.v1.AgentsService"
Metadata = tuple[tuple[str, str], ...]


def bearer(edge: Edge) -> Metadata:
    return tuple(edge.bearer().items())


def reason(details: bytes) -> str:
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert info.domain == "plexus"
    return str(info.reason)


async def failure(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The code and the reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    assert "x-request-id" in trailers
    return caught.value.code(), reason(bytes(trailers["grpc-status-details-bin"]))


async def gather(stream: AsyncIterable[run_pb2.RunEvent]) -> list[int]:
    return [event.sequence async for event in stream]


async def test_unary_and_stream(edge: Edge) -> None:
    stub = AgentsServiceStub(edge.channel)
    reply = await stub.GetAgent(pb.GetAgentRequest(agent_id="agt_ok"), metadata=bearer(edge))
    assert reply.agent.agent_id == "agt_ok"
    stream = stub.Process(pb.ProcessRequest(input="words"), metadata=bearer(edge))
    assert await gather(stream) == [1, 2, 3]


async def test_refusals_are_statuses_with_reasons(edge: Edge) -> None:
    stub, code = AgentsServiceStub(edge.channel), grpc.StatusCode
    metadata = bearer(edge)
    assert await failure(stub.GetAgent(pb.GetAgentRequest())) == (
        code.UNAUTHENTICATED,
        "UNAUTHENTICATED",
    )
    assert await failure(gather(stub.Process(pb.ProcessRequest(input="words")))) == (
        code.UNAUTHENTICATED,
        "UNAUTHENTICATED",
    )
    missing = stub.GetAgent(pb.GetAgentRequest(agent_id="missing"), metadata=metadata)
    assert await failure(missing) == (code.NOT_FOUND, "NOT_FOUND")
    large = stub.GetAgent(pb.GetAgentRequest(agent_id="x" * BODY_BYTES), metadata=metadata)
    assert await failure(large) == (code.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE")
    slow = stub.GetAgent(pb.GetAgentRequest(agent_id="slow"), metadata=metadata)
    assert await failure(slow) == (code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    broken = gather(stub.Process(pb.ProcessRequest(input="breaks"), metadata=metadata))
    with pytest.raises(grpc.aio.AioRpcError, match="There is no such agent"):
        await broken


async def test_internal_rpcs_are_not_there(edge: Edge) -> None:
    before = len(edge.backend.seen)
    call = HistoryServiceStub(edge.channel).AppendMessage(
        history_service_pb2.AppendMessageRequest(), metadata=bearer(edge)
    )
    assert await failure(call) == (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD")
    assert len(edge.backend.seen) == before


@pytest.mark.parametrize(("asked", "granted"), [(0.15, 0.15), (30, SHORT["GetAgent"])])
async def test_a_callers_deadline_is_obeyed_and_capped(
    edge: Edge, asked: float, granted: float
) -> None:
    # The header alone, so that the client itself does not end the call.
    metadata = (*bearer(edge), ("x-grpc-web", "1"))
    headers = {**dict(metadata), "grpc-timeout": f"{int(asked * 1000)}m"}
    began = time.monotonic()
    reply = await grpcweb.call(
        edge.http,
        f"{edge.url}{SERVICE}/GetAgent",
        pb.GetAgentRequest(agent_id="slow"),
        headers=headers,
    )
    assert reply.status == 4
    assert granted - 0.05 < time.monotonic() - began < granted + 1


async def test_a_stream_is_told_how_long_it_has(edge: Edge) -> None:
    stub, request = AgentsServiceStub(edge.channel), pb.ProcessRequest(input="words")
    for asked, granted in ((0.3, 0.3), (30, SHORT["Process"] + STREAM_GRACE_SECONDS)):
        assert await gather(stub.Process(request, metadata=bearer(edge), timeout=asked))
        told = edge.backend.remaining["Process"]
        assert told is not None
        # The client rounds the time that it asks for up.
        assert granted - 0.2 < told < granted + 0.05


async def test_mesh_headers_are_stripped(edge: Edge) -> None:
    metadata = (*bearer(edge), ("x-plexus-assertion", "forged"), ("x-plexus-z", "forged"))
    await AgentsServiceStub(edge.channel).GetAgent(
        pb.GetAgentRequest(agent_id="agt_ok"), metadata=metadata
    )
    assert not [key for key in edge.backend.last("GetAgent") if key.startswith("x-plexus")]


async def test_health_is_for_anyone_and_reflection_for_callers(edge: Edge) -> None:
    # Neither package has types of its own.
    health: Any = health_pb2_grpc.HealthStub(edge.channel)
    told = await health.Check(health_pb2.HealthCheckRequest())
    assert told.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health.Watch(health_pb2.HealthCheckRequest()).read()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async for told in health.Watch(health_pb2.HealthCheckRequest(), metadata=bearer(edge)):
        assert told.status == health_pb2.HealthCheckResponse.SERVING
        break
    channel: Any = edge.channel
    reflect: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    # Over gRPC-Web, since grpc.aio may fail by itself when a refusal overtakes what it sends.
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert (await grpcweb.call(edge.http, edge.url + path, request)).status == 16
    replies = [r async for r in reflect(iter([request]), metadata=bearer(edge))]
    assert replies[0].list_services_response.service[0].name == "grpc.health.v1.Health"


@pytest.mark.parametrize("text", [False, True])
async def test_grpc_web(edge: Edge, text: bool) -> None:
    async def ask(method: str, request: Message, *, token: bool = True) -> grpcweb.Reply:
        return await grpcweb.call(
            edge.http,
            f"{edge.url}{SERVICE}/{method}",
            request,
            text=text,
            headers={**(edge.bearer() if token else {}), "origin": "http://localhost:1"},
        )

    one = await ask("GetAgent", pb.GetAgentRequest(agent_id="agt_ok"))
    assert one.status == 0
    assert pb.GetAgentResponse.FromString(one.messages[0]).agent.agent_id == "agt_ok"
    assert one.headers["access-control-allow-origin"] == "http://localhost:1"
    many = await ask("Process", pb.ProcessRequest(input="words"))
    sequences = [run_pb2.RunEvent.FromString(message).sequence for message in many.messages]
    assert (many.status, sequences) == (0, [1, 2, 3])
    broken = await ask("Process", pb.ProcessRequest(input="breaks"))
    assert (broken.status, len(broken.messages)) == (5, 1)
    assert broken.message == 'There is no such agent, "missing".'


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("method", "agent_id", "token", "status", "words"),
    [
        ("GetAgent", "missing", True, 5, "no such agent"),
        ("GetAgent", "slow", True, 4, "longer than its deadline"),
        ("GetAgent", "x" * BODY_BYTES, True, 8, "larger than"),
        ("GetAgent", "agt_ok", False, 16, "token is required"),
        ("Nope", "agt_ok", True, 12, "no such method"),
    ],
)
async def test_grpc_web_refusals(
    edge: Edge, text: bool, method: str, agent_id: str, token: bool, status: int, words: str
) -> None:
    reply = await grpcweb.call(
        edge.http,
        f"{edge.url}{SERVICE}/{method}",
        pb.GetAgentRequest(agent_id=agent_id),
        text=text,
        headers=edge.bearer() if token else {},
    )
    assert (reply.status, reply.messages) == (status, [])
    assert words in reply.message
    assert "x-request-id" in reply.headers
