"""A real server that has too many callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from plexus.history.v1.history_service_pb2_grpc import (
    HistoryServiceStub,
)

from services.runtime.clients import Clients
from services.runtime.context import mesh_principal
from services.runtime.errors import PlexusError, ResourceExhausted
from services.runtime.resilience.shedding import Admission
from services.runtime.status import remote_errors
from services.runtime.topology import Address, target
from tests.services.runtime.resilience.served import GET, SIGNER, serving


def calls(stub: HistoryServiceStub, tenant: str, count: int) -> list[asyncio.Future[Any]]:
    metadata = (("authorization", f"Bearer {tenant}"),)
    return [
        asyncio.ensure_future(stub.GetSession(GET, metadata=metadata, timeout=10))
        for _ in range(count)
    ]


async def refusal(call: asyncio.Future[Any]) -> PlexusError:
    with pytest.raises(PlexusError) as caught, remote_errors():
        await call
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_noisy_tenant_does_not_keep_a_quiet_one_out(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "s")
    admission = Admission(max_calls=20)
    async with (
        serving(address, admission) as (_, sessions),
        grpc.aio.insecure_channel(address.text) as channel,
    ):
        stub = HistoryServiceStub(channel)
        sessions.go.clear()
        noisy = calls(stub, "noisy", 40)
        await until(lambda: sum(each.done() for each in noisy) == 30)
        quiet = calls(stub, "quiet", 5)
        await until(lambda: sessions.calls == 15)
        assert admission.calls.tenants == {"noisy": 10, "quiet": 5}
        refused = next(each for each in noisy if each.done())
        error = await refusal(refused)
        assert isinstance(error, ResourceExhausted)
        assert (error.reason, error.metadata) == ("LIMIT_REACHED", {"limit": "calls of a tenant"})
        assert 1 <= (error.retry_after or 0) <= 4
        # gRPC's health is not counted, and the mesh has places that others have not.
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert await health.Check(health_pb2.HealthCheckRequest(service="plexus.mesh"))
        sessions.go.set()
        await asyncio.gather(*quiet)
        await asyncio.gather(*noisy, return_exceptions=True)
        await until(lambda: admission.calls.used == 0)
        assert admission.calls.tenants == {}


async def test_the_mesh_is_served_when_the_house_is_full(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "s")
    admission = Admission(max_calls=4)
    async with (
        serving(address, admission) as (_, sessions),
        grpc.aio.insecure_channel(address.text) as channel,
    ):
        stub = HistoryServiceStub(channel)
        sessions.go.clear()
        outside = [call for number in range(4) for call in calls(stub, f"ten_{number}", 1)]
        await until(lambda: sessions.calls == 4)
        # Nobody asks for a credential before there is a place.
        error = await refusal(asyncio.ensure_future(stub.GetSession(GET)))
        assert (error.reason, error.metadata) == ("LIMIT_REACHED", {"limit": "calls"})
        metadata = (("x-plexus-assertion", SIGNER.sign(mesh_principal("ten_9"))),)
        inside = [asyncio.ensure_future(stub.GetSession(GET, metadata=metadata)) for _ in range(5)]
        await until(lambda: sum(each.done() for each in inside) == 1)
        forged = stub.GetSession(GET, metadata=(("x-plexus-assertion", "x"),))
        assert (await refusal(asyncio.ensure_future(forged))).reason == "LIMIT_REACHED"
        sessions.go.set()
        await asyncio.gather(*outside)
        results = await asyncio.gather(*inside, return_exceptions=True)
        assert sum(isinstance(each, grpc.aio.AioRpcError) for each in results) == 1
        assert (await refusal(asyncio.ensure_future(stub.GetSession(GET)))).reason == (
            "UNAUTHENTICATED"
        )


async def test_callers_who_leave_give_their_places_back(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "s")
    admission = Admission(max_calls=50)
    async with (
        serving(address, admission) as (_, sessions),
        grpc.aio.insecure_channel(address.text) as channel,
    ):
        stub = HistoryServiceStub(channel)
        sessions.go.clear()
        for _ in range(5):
            leaving = calls(stub, "ten_1", 20)
            await asyncio.sleep(0.02)
            for call in leaving:
                call.cancel()
            await asyncio.wait(leaving)
        await until(lambda: admission.calls.used == 0)
        assert admission.calls.tenants == {}
        # Nor do those who are refused for another reason.
        sessions.go.set()
        bad = [
            asyncio.ensure_future(stub.GetSession(GET, metadata=(("authorization", "x"),)))
            for _ in range(20)
        ]
        await asyncio.gather(*bad, return_exceptions=True)
        await until(lambda: admission.calls.used == 0)


async def test_a_loop_that_lags_takes_fewer(tmp_path: Path) -> None:
    admission = Admission(max_calls=1000)
    async with serving(Address(path=tmp_path / "s"), admission):
        admission.calls.used = 100
        async with asyncio.timeout(10):
            while admission.calls.limit.value == 1000:
                time.sleep(0.2)  # noqa: ASYNC251 - this is what lags
                await asyncio.sleep(0)
        assert admission.lag.seconds > 0.05
        admission.calls.used = 0


async def test_a_draining_replica_gets_no_new_calls(tmp_path: Path) -> None:
    one, two = Address(path=tmp_path / "1"), Address(path=tmp_path / "2")
    async with serving(one) as (first, sessions), serving(two) as (_, others):
        clients = Clients({"history": target((one, two))}, SIGNER)
        stub = HistoryServiceStub(clients.channel("history"))
        for _ in range(20):
            await stub.GetSession(GET, wait_for_ready=True)
        await until(lambda: sessions.calls > 0 and others.calls > 0)
        await first.drain(0.2)
        before = -1
        async with asyncio.timeout(10):  # a busy machine tells a client later than a quiet one
            while sessions.calls != before:
                before = sessions.calls
                for _ in range(40):
                    await stub.GetSession(GET)
        await clients.close()


async def test_health_is_seen_while_calls_are_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.telemetry._enabled", True)
    one, two = Address(path=tmp_path / "1"), Address(path=tmp_path / "2")
    async with serving(one), serving(two):
        clients = Clients({"history": target((one, two))}, SIGNER)
        stub = HistoryServiceStub(clients.channel("history"))
        await stub.GetSession(GET, wait_for_ready=True)
        await clients.close()
