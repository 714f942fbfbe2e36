"""Outgoing calls against real servers: breaker, bulkhead, deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from plexus.history.v1 import history_service_pb2 as history_pb
from plexus.identity.v1 import identity_service_pb2 as identity_pb
from plexus.llm.v1 import generation_pb2 as llm_pb

from services.runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from services.runtime.resilience.breaker import State
from services.runtime.resilience.callee import Bounds
from services.runtime.status import remote_errors
from tests.services.runtime.resilience.backend import (
    GET,
    Backend,
    Mesh,
    answer,
    failing,
    listening,
    running,
    serving_for,
    texts,
)


async def trip(mesh: Mesh) -> None:
    """Fail until the breaker opens, without waiting for retries."""
    while mesh.callee().retries.take():
        pass
    for _ in range(60):
        if mesh.callee().breaker.state is State.OPEN:
            return
        with pytest.raises(Unavailable), remote_errors():
            await mesh.history.GetSession(GET)
    raise AssertionError("the breaker does not open")


async def test_an_open_breakeranswers_at_once_and_closes_again(mesh: Mesh) -> None:
    mesh.backend.script = failing(1_000)
    await trip(mesh)
    before = mesh.backend.calls
    assert before == 20
    with pytest.raises(Unavailable) as refusal, remote_errors():
        await mesh.history.GetSession(GET)
    assert refusal.value.retry_after == 1
    call = mesh.history.GetSession(GET)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert mesh.backend.calls == before
    # Others are not concerned, and who waits for as long as it takes is let through.
    await mesh.identity.WatchRevocations(identity_pb.WatchRevocationsRequest()).code()
    mesh.backend.script = answer
    await mesh.history.GetSession(GET, wait_for_ready=True)
    assert mesh.callee().breaker.state is not State.CLOSED
    await asyncio.sleep(0.3)
    await asyncio.gather(mesh.history.GetSession(GET))
    assert mesh.callee().breaker.state is State.CLOSED


async def test_domain_failures_and_the_callers_own_haste_open_nothing(mesh: Mesh) -> None:
    mesh.backend.script = failing(40, Unavailable("no", reason="MODEL_UNAVAILABLE"))
    for _ in range(40):
        with pytest.raises(Unavailable), remote_errors():
            await mesh.llm.Generate(llm_pb.GenerateRequest()).read()
    assert mesh.callee("llm").breaker.state is State.CLOSED

    async def slow(_: Any) -> None:
        await asyncio.sleep(60)

    mesh.backend.script = slow
    hasty = [mesh.history.GetSession(GET, timeout=0.1) for _ in range(40)]
    await asyncio.gather(*hasty, return_exceptions=True)
    assert {await each.code() for each in hasty} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert mesh.callee().breaker.state is State.CLOSED


async def test_a_watch_neither_trips_nor_waits(tmp_path: Path) -> None:
    async with running(tmp_path / "s", Bounds(streams=1, waiting=0)) as mesh:
        watches = [
            mesh.identity.WatchRevocations(
                identity_pb.WatchRevocationsRequest(), wait_for_ready=True
            )
            for _ in range(3)
        ]
        for watch in watches:
            await watch.read()
        for watch in watches:
            watch.cancel()


async def test_a_bulkhead_bounds_calls_and_streams_apart(tmp_path: Path) -> None:
    async with running(tmp_path / "s", Bounds(calls=4, streams=1, waiting=4, seconds=5)) as mesh:
        go = asyncio.Event()

        async def wait(_: Any) -> None:
            await go.wait()

        mesh.backend.script = wait
        stream = mesh.llm.Generate(llm_pb.GenerateRequest())
        calls = [asyncio.ensure_future(mesh.history.GetSession(GET)) for _ in range(9)]
        await asyncio.sleep(0.1)
        refused = [each for each in calls if each.done()]
        assert len(refused) == 1
        with pytest.raises(ResourceExhausted) as refusal, remote_errors():
            await refused[0]
        assert refusal.value.metadata == {"limit": "calls to history"}
        assert mesh.callee().calls.used == 4
        go.set()
        await asyncio.gather(*(each for each in calls if each is not refused[0]))
        assert texts([each async for each in stream]) == ["a", "b"]
        assert mesh.backend.calls == 9


async def test_cancelled_calls_give_their_places_back(tmp_path: Path) -> None:
    async with running(tmp_path / "s", Bounds(calls=2, waiting=50, seconds=5)) as mesh:

        async def slow(_: Any) -> None:
            await asyncio.sleep(60)

        mesh.backend.script = slow
        tasks = [asyncio.ensure_future(mesh.history.GetSession(GET)) for _ in range(20)]
        dropped = [mesh.history.GetSession(GET) for _ in range(5)]
        await asyncio.sleep(0.05)
        for number, task in enumerate(tasks):
            task.cancel()
            if number % 3 == 0:
                await asyncio.sleep(0)
        await asyncio.wait(tasks)
        for call in dropped:
            call.cancel()
        mesh.backend.script = failing(1_000, Unavailable("wait", retry_after=3))
        repeated = mesh.history.GetSession(GET)
        waiting = asyncio.ensure_future(repeated)
        await asyncio.sleep(0.2)
        repeated.cancel()
        await asyncio.wait([waiting], timeout=1)
        assert waiting.cancelled()
        mesh.backend.script = answer
        await asyncio.sleep(0.05)
        assert (mesh.callee().calls.used, mesh.callee().calls.waiting) == (0, 0)
        await asyncio.gather(*(mesh.history.GetSession(GET) for _ in range(20)))


async def test_a_callee_has_less_time_than_its_caller(mesh: Mesh) -> None:
    with serving_for(1.0):
        await mesh.history.GetSession(GET)
        await mesh.history.GetSession(GET, timeout=30)
        await mesh.history.GetSession(GET, timeout=0.5)
    with serving_for(600):
        await mesh.history.GetSession(GET)
    await mesh.history.GetSession(GET)
    first, second, third, fourth, fifth = mesh.backend.remaining
    assert 0.5 < first < 0.96
    assert 0.5 < second < 0.96
    assert third < 0.51
    assert 4 < fourth <= 5.01, "the contract's"
    assert 4 < fifth <= 5.01


async def test_a_call_with_no_time_left_is_not_sent(mesh: Mesh) -> None:
    with serving_for(0.015), pytest.raises(DeadlineExceeded), remote_errors():
        await mesh.history.GetSession(GET)
    with serving_for(-1), pytest.raises(DeadlineExceeded), remote_errors():
        async for _ in mesh.llm.Generate(llm_pb.GenerateRequest()):
            pass
    assert mesh.backend.calls == 0


async def test_a_dead_callee_that_comes_back_is_found(tmp_path: Path) -> None:
    mesh = Mesh(Backend(), tmp_path / "s", None)
    with pytest.raises(Unavailable), remote_errors():
        await mesh.history.GetSession(GET)
    assert mesh.callee().retried == 3
    async with listening(mesh.backend, tmp_path / "s"):
        await mesh.history.GetSession(GET, wait_for_ready=True)
        await mesh.history.GetSession(GET)
    await mesh.clients.close()


async def test_uploads_pass_the_same_gates(mesh: Mesh) -> None:
    # No contract has such an RPC yet, so its name is none that the callee knows.
    channel = mesh.clients.channel("history")
    make: Any = channel.stream_unary(
        "/plexus.history.v1.HistoryService/Upload",
        history_pb.GetSessionRequest.SerializeToString,
        history_pb.GetSessionResponse.FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await make(iter([GET]))
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    known: Any = channel.stream_unary(
        "/plexus.history.v1.HistoryService/GetSession",
        history_pb.GetSessionRequest.SerializeToString,
        history_pb.GetSessionResponse.FromString,
    )
    await known(iter([GET]))
    mesh.backend.script = failing(1_000)
    await trip(mesh)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        known(iter([GET]))
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
