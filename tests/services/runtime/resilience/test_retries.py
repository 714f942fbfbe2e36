"""Which calls are made again, and which are not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from plexus.identity.v1 import identity_service_pb2 as identity_pb
from plexus.llm.v1 import generation_pb2 as llm_pb

from services.runtime.errors import ResourceExhausted, Unavailable
from services.runtime.resilience.breaker import State
from services.runtime.status import remote_errors
from tests.services.runtime.resilience.backend import (
    GET,
    Mesh,
    failing,
    texts,
)


async def test_what_is_idempotent_is_made_again(mesh: Mesh) -> None:
    mesh.backend.script = failing(3)
    await mesh.history.GetSession(GET)
    assert (mesh.backend.calls, mesh.callee().retried) == (4, 3)
    mesh.backend.script = failing(9)
    with pytest.raises(Unavailable), remote_errors():
        await mesh.history.GetSession(GET)
    assert mesh.backend.calls == 8


async def test_what_is_not_idempotent_is_made_once(mesh: Mesh) -> None:
    mesh.backend.script = failing(1)
    with pytest.raises(Unavailable), remote_errors():
        await mesh.identity.CreateApiKey(identity_pb.CreateApiKeyRequest())
    assert mesh.backend.calls == 1
    mesh.backend.script = failing(1)
    with pytest.raises(Unavailable), remote_errors():
        async for _ in mesh.llm.Generate(llm_pb.GenerateRequest()):
            pass
    assert mesh.backend.calls == 2


async def test_ananswer_is_ananswer(mesh: Mesh) -> None:
    mesh.backend.script = failing(1, ResourceExhausted("no", metadata={"limit": "x"}))
    with pytest.raises(ResourceExhausted), remote_errors():
        await mesh.history.GetSession(GET)
    assert mesh.backend.calls == 1


async def test_a_callee_says_when_to_come_back(mesh: Mesh) -> None:
    mesh.backend.script = failing(1, Unavailable("wait", retry_after=1))
    began = time.monotonic()
    await mesh.history.GetSession(GET)
    assert 1 <= time.monotonic() - began < 1.5
    mesh.backend.script = failing(1, Unavailable("wait", retry_after=60))
    began = time.monotonic()
    with pytest.raises(Unavailable) as refusal, remote_errors():
        await mesh.history.GetSession(GET)
    assert refusal.value.retry_after == 60
    assert time.monotonic() - began < 0.5, "its time would be over"


async def test_retries_end_with_their_budget(mesh: Mesh) -> None:
    for _ in range(18):
        await mesh.history.GetSession(GET)
    while mesh.callee().retries.take():
        pass
    mesh.backend.script = failing(1)
    before = mesh.backend.calls
    with pytest.raises(Unavailable), remote_errors():
        await mesh.history.GetSession(GET)
    assert mesh.backend.calls == before + 1


async def test_calls_that_fail_together_do_not_keep_each_other_out(mesh: Mesh) -> None:
    count = 24
    together = asyncio.Event()

    async def once_for_all(context: Any) -> None:
        if mesh.backend.calls <= count:
            if mesh.backend.calls == count:
                together.set()
            await together.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    mesh.backend.script = once_for_all
    await asyncio.gather(*(mesh.history.GetSession(GET) for _ in range(count)))
    callee = mesh.callee()
    assert (callee.breaker.opened, callee.breaker.state) == (1, State.CLOSED)
    assert (mesh.backend.calls, callee.retried) == (2 * count, count)


async def test_a_repeated_call_waits_for_an_open_breaker_no_longer_than_it_has(mesh: Mesh) -> None:
    mesh.backend.script = failing(1_000)
    calls = [mesh.history.GetSession(GET) for _ in range(30)]
    began = time.monotonic()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in ended)
    assert time.monotonic() - began < 5
    # However often one waits, what is sent stays bounded: a probe now and then.
    assert mesh.backend.calls < 60


async def test_a_stream_is_made_again_until_its_first_message(mesh: Mesh) -> None:
    # Of the mesh's streams none is declared idempotent; what follows is as if one were.
    channel: Any = mesh.clients.channel("llm")
    path = "/plexus.llm.v1.LlmService/Generate"
    method = channel.methods[path]
    object.__setattr__(method, "retryable", True)
    mesh.backend.script = failing(2)
    heard = [each async for each in mesh.llm.Generate(llm_pb.GenerateRequest())]
    assert (texts(heard), mesh.backend.calls) == (["a", "b"], 3)

    mesh.backend.calls = 0
    mesh.backend.breaks = True
    with pytest.raises(Unavailable), remote_errors():
        async for _ in mesh.llm.Generate(llm_pb.GenerateRequest()):
            pass
    assert mesh.backend.calls == 1


async def test_a_stream_can_be_read_and_left(mesh: Mesh) -> None:
    call = mesh.llm.Generate(llm_pb.GenerateRequest())
    first: Any = await call.read()
    second: Any = await call.read()
    assert texts([first, second]) == ["a", "b"]
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    left = mesh.identity.WatchRevocations(identity_pb.WatchRevocationsRequest())
    await left.read()
    assert mesh.callee("identity").streams.used == 1
    assert left.cancel()
    assert not left.cancel()
    assert await left.code() is grpc.StatusCode.CANCELLED
    assert mesh.callee("identity").streams.used == 0
