"""Says by the health protocol whether what is shared works, beside the services that serve anyway.

The protocol knows no state between serving and not. So a process has a name more: SERVING while all
is there, NOT_SERVING while Redis is away. Whoever routes calls does not look at it; monitor does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.runtime.shared.api import Shared

REDIS_SERVICE = "plexus.redis"
_PAUSE_SECONDS = 1.0


async def keep_telling(shared: Shared, tell: Callable[[str, bool], Awaitable[None]]) -> None:
    """Keep that name true, until cancelled.

    Args:
        shared: What it is about.
        tell: Sets whether a name of the health protocol is SERVING.
    """
    while True:
        await tell(REDIS_SERVICE, shared.whole)
        await asyncio.sleep(_PAUSE_SECONDS)
