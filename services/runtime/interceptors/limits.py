"""A tenant's limits over every gateway and replica, where these share a Redis.

Each gateway refuses by itself what is over the limit, which costs no process anything. Several of
them let pass several times as much: what they let pass together is counted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from services.runtime.context import CallContext
from services.runtime.contract import Method, RateClass
from services.runtime.errors import ResourceExhausted
from services.runtime.settings import Settings
from services.runtime.shared import Limiter

# As the gateway: what was not used is saved up for this long.
_BURST_SECONDS = 2


class SharedLimits:
    """Counts calls from outside against their tenant's limits."""

    def __init__(self, limiter: Limiter, settings: Settings) -> None:
        self._limiter = limiter
        self._rates: Mapping[RateClass, int] = {
            RateClass.READ: settings.rate_read,
            RateClass.WRITE: settings.rate_write,
            RateClass.GENERATE: settings.rate_generate,
        }

    async def take(self, call: CallContext, method: Method) -> None:
        """Count one call, whose caller is known.

        Raises:
            ResourceExhausted: The tenant makes more than it may.
        """
        rate = self._rates.get(method.rate_class, 0)
        if not rate or call.principal is None or call.principal.mesh:
            return
        key = f"calls.{method.rate_class.name}.{call.principal.tenant_id}"
        burst = max(math.ceil(rate * _BURST_SECONDS), method.cost)
        wait = await self._limiter.take(key, rate, burst, method.cost)
        if wait > 0:
            raise ResourceExhausted(
                "Too many requests; try again later.",
                reason="RATE_LIMITED",
                metadata={"limit": method.rate_class.name.lower()},
                retry_after=wait,
            )
