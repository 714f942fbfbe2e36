"""The health stream, on a mesh some of whose modules are not there."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from plexus.monitor.v1.monitor_service_pb2 import ModuleStatus

from services.monitor import service
from services.monitor.service import HealthWatch
from services.runtime.shared import REDIS_SERVICE, keep_telling, open_shared
from tests.redis_server import redis_server

HISTORY = "plexus.history.v1.HistoryService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def health(
    tmp_path: Path,
) -> AsyncIterator[tuple[health_aio.HealthServicer, grpc.aio.Server]]:
    server = grpc.aio.server()
    servicer = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path}/h.sock")
    await server.start()
    yield servicer, server
    await server.stop(0)


async def test_every_change_is_told_and_a_dead_module_too(
    tmp_path: Path, health: tuple[health_aio.HealthServicer, grpc.aio.Server]
) -> None:
    servicer, server = health
    await servicer.set(HISTORY, SERVING)
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/h.sock") as channel:
        watch = HealthWatch({"history": channel})
        following = asyncio.create_task(watch.follow())
        changes = watch.changes()
        async with asyncio.timeout(10):
            first = await anext(changes)
            assert (first.module, first.status) == ("history", ModuleStatus.MODULE_STATUS_SERVING)
            await servicer.set(HISTORY, NOT_SERVING)
            second = await anext(changes)
            assert second.status == ModuleStatus.MODULE_STATUS_NOT_SERVING
            assert second.since >= first.since
            await server.stop(0)
            assert (await anext(changes)).status == ModuleStatus.MODULE_STATUS_UNREACHABLE
            # Whoever comes later is told how things are now.
            late = watch.changes()
            assert (await anext(late)).status == ModuleStatus.MODULE_STATUS_UNREACHABLE
        await changes.aclose()
        await late.aclose()
        following.cancel()


async def test_what_a_module_does_without_is_told(
    tmp_path: Path, health: tuple[health_aio.HealthServicer, grpc.aio.Server]
) -> None:
    servicer, _ = health
    await servicer.set(HISTORY, SERVING)
    await servicer.set(REDIS_SERVICE, NOT_SERVING)
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/h.sock") as channel:
        watch = HealthWatch({"history": channel})
        following = asyncio.create_task(watch.follow())
        changes = watch.changes()
        async with asyncio.timeout(10):
            told = [await anext(changes)]
            for name, status in (
                (REDIS_SERVICE, SERVING),
                (REDIS_SERVICE, NOT_SERVING),
                # A module that does not serve has no need to say what it would do without.
                (HISTORY, NOT_SERVING),
                (HISTORY, SERVING),
            ):
                await servicer.set(name, status)
                told.append(await anext(changes))
        assert [(each.status, each.detail) for each in told] == [
            (ModuleStatus.MODULE_STATUS_DEGRADED, "redis"),
            (ModuleStatus.MODULE_STATUS_SERVING, ""),
            (ModuleStatus.MODULE_STATUS_DEGRADED, "redis"),
            (ModuleStatus.MODULE_STATUS_NOT_SERVING, ""),
            (ModuleStatus.MODULE_STATUS_DEGRADED, "redis"),
        ]
        await changes.aclose()
        following.cancel()
        await asyncio.wait({following})


async def test_a_redis_that_comes_and_goes_is_told(
    health: tuple[health_aio.HealthServicer, grpc.aio.Server], tmp_path: Path
) -> None:
    servicer, _ = health
    await servicer.set(HISTORY, SERVING)

    async def tell(name: str, good: bool) -> None:
        await servicer.set(name, SERVING if good else NOT_SERVING)

    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        async with (
            grpc.aio.insecure_channel(f"unix:{tmp_path}/h.sock") as channel,
            open_shared(redis.url) as shared,
        ):
            watch = HealthWatch({"history": channel})
            tasks = [
                asyncio.create_task(work) for work in (watch.follow(), keep_telling(shared, tell))
            ]
            changes = watch.changes()
            async with asyncio.timeout(10):
                assert (await anext(changes)).status == ModuleStatus.MODULE_STATUS_SERVING
                redis.kill()
                assert (await anext(changes)).detail == "redis"
                redis.start()
                assert (await anext(changes)).status == ModuleStatus.MODULE_STATUS_SERVING
            await changes.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_a_quiet_stream_gives_a_sign_of_life(
    tmp_path: Path,
    health: tuple[health_aio.HealthServicer, grpc.aio.Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_QUIET_SECONDS", 0.05)
    await health[0].set(HISTORY, SERVING)
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/h.sock") as channel:
        watch = HealthWatch({"history": channel})
        following = asyncio.create_task(watch.follow())
        changes = watch.changes()
        async with asyncio.timeout(5):
            assert await anext(changes) == await anext(changes)
        await changes.aclose()
        following.cancel()
        await asyncio.wait({following})
