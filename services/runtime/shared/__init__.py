"""What replicas agree on: limits, cached values, and news of what changed.

There is one interface (`api.py`) and two implementations of it: in memory for a process that is
alone, and over Redis where an address of one is set. Nothing here is a source of truth, and
nothing here fails: without Redis, limits hold for each process, caches miss, and news do not
travel, until it is back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.shared.api import (
    Cache,
    Caches,
    Limiter,
    Notices,
    Shared,
    SharedUrlError,
    Subscription,
)
from services.runtime.shared.health import REDIS_SERVICE, keep_telling
from services.runtime.shared.memory import MemoryShared

__all__ = [
    "REDIS_SERVICE",
    "Cache",
    "Caches",
    "Limiter",
    "MemoryShared",
    "Notices",
    "Shared",
    "SharedUrlError",
    "Subscription",
    "keep_telling",
    "open_shared",
]


@asynccontextmanager
async def open_shared(url: str, *, alone: bool = False) -> AsyncIterator[Shared]:
    """What this process shares with its replicas while the block runs.

    Args:
        url: Of a Redis, which need not be there now; empty for this process's memory.
        alone: Whether there is no other process to share with. It matters without a Redis only:
            then news reach everyone there is.

    Raises:
        SharedUrlError: The URL is no address of a Redis.
    """
    if not url:
        yield MemoryShared(alone=alone)
        return
    # The client takes half a second to import, which nobody should pay who has no Redis.
    from services.runtime.shared.over_redis import open_redis

    async with open_redis(url) as shared:
        yield shared
