"""Follows the health of every module by gRPC's health protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from plexus.monitor.v1.monitor_service_pb2 import ModuleStatus

from services.runtime import clock
from services.runtime.contract import module_methods
from services.runtime.shared import REDIS_SERVICE

_QUIET_SECONDS = 15.0
_RETRY_SECONDS = 0.5
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# Beside the protocol's own: the process cannot be asked.
_UNREACHABLE = -1
_STATUS = {
    health_pb2.HealthCheckResponse.SERVING: ModuleStatus.MODULE_STATUS_SERVING,
    _NOT_SERVING: ModuleStatus.MODULE_STATUS_NOT_SERVING,
    _UNREACHABLE: ModuleStatus.MODULE_STATUS_UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class ModuleHealth:
    """How a module is, since when (microseconds), and what it does without."""

    module: str
    status: ModuleStatus.ValueType
    since: int
    detail: str = ""


class HealthWatch:
    """Watches each module once, however many look."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = channels
        self._known: dict[str, ModuleHealth] = {}
        self._changed = asyncio.Condition()

    async def changes(self) -> AsyncGenerator[ModuleHealth, None]:
        """Each module's health, then each change, and a sign of life when nothing changes."""
        told: dict[str, ModuleHealth] = {}
        last: ModuleHealth | None = None
        while True:
            news = [each for each in self._known.values() if told.get(each.module) != each]
            if not news and last is not None:
                news = [last]
            for last in news:
                told[last.module] = last
                yield last
            with suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_SECONDS), self._changed:
                    await self._changed.wait_for(lambda: self._known != told)

    async def follow(self) -> None:
        """Keep what is known true, until cancelled."""
        watchers = [
            asyncio.create_task(self._follow_one(module, channel))
            for module, channel in self._channels.items()
        ]
        try:
            await asyncio.gather(*watchers)
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _follow_one(self, module: str, channel: grpc.aio.Channel) -> None:
        # Its services are in health together: any of them speaks for it.
        service = next(iter(module_methods(module))).split("/")[1]
        said: dict[str, int] = {}

        async def follow(name: str) -> None:
            while True:
                async for status in _statuses(channel, name):
                    said[name] = status
                    # Before both have been heard of, a degraded module would seem whole.
                    if len(said) == 2:
                        await self._learn(module, said[service], said[REDIS_SERVICE])
                await asyncio.sleep(_RETRY_SECONDS)

        async with asyncio.TaskGroup() as group:
            group.create_task(follow(service))
            group.create_task(follow(REDIS_SERVICE))

    async def _learn(self, module: str, own: int, redis: int) -> None:
        status = _STATUS.get(own, ModuleStatus.MODULE_STATUS_NOT_SERVING)
        detail = ""
        if status == ModuleStatus.MODULE_STATUS_SERVING and redis == _NOT_SERVING:
            status, detail = ModuleStatus.MODULE_STATUS_DEGRADED, "redis"
        known = self._known.get(module)
        if known is None or (known.status, known.detail) != (status, detail):
            async with self._changed:
                self._known[module] = ModuleHealth(module, status, clock.now(), detail)
                self._changed.notify_all()


async def _statuses(channel: grpc.aio.Channel, name: str) -> AsyncIterator[int]:
    """What a process says of a name until the stream breaks, which is a status too."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=name)):
            yield reply.status
    except grpc.aio.AioRpcError:
        yield _UNREACHABLE
