"""Where monitor's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plexus.monitor.v1.monitor_service_pb2_grpc import add_MonitorServiceServicer_to_server

from services.monitor.service import HealthWatch
from services.monitor.servicer import MonitorServicer
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Register the servicer and begin to watch."""
    watch = HealthWatch({name: ctx.clients.channel(name) for name in ctx.clients.modules})
    ctx.tasks.keep_running("monitor.health", watch.follow)
    add_MonitorServiceServicer_to_server(MonitorServicer(watch), ctx.server)
    yield
