"""Work that is dear enough for a test to send too much of it, and processes that take all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tests.faults.planting import Plant, replace

_SLOW_SECONDS = 0.03
# As many at once as half of the calls that the process is let take: one tenant's share of them all.
_TURNS = 8
_TURN_SECONDS = 0.2


def _burn(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def profiles_take_turns() -> None:
    """No defect: looking up a profile waits for its turn at something that is slow."""
    from services.identity.servicer import IdentityServicer

    turns = asyncio.Semaphore(_TURNS)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def get_profile(*arguments: Any) -> Any:
            async with turns:
                await asyncio.sleep(_TURN_SECONDS)
            return await original(*arguments)

        return get_profile

    replace(IdentityServicer, "GetProfile", make)


def everyone_is_let_in() -> None:
    """However much there is to do, a process takes more."""
    from services.runtime.resilience.shedding import Pool

    replace(Pool, "full", lambda _: lambda self, mesh: False)
    replace(Pool, "unfair", lambda _: lambda self, tenant: False)


def refusals_are_work() -> None:
    """To refuse takes longer than to serve."""
    from services.runtime.resilience.shedding import Admission

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(self: Any, limit: str) -> Any:
            _burn(_SLOW_SECONDS)
            return original(self, limit)

        return refuse

    replace(Admission, "refuse", make)


DEFECTS: dict[str, Plant] = {
    each.__name__: each for each in (profiles_take_turns, everyone_is_let_in, refusals_are_work)
}
