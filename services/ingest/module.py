"""Where ingest's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Serve nothing yet."""
    yield
