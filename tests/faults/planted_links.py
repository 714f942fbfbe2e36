"""Defects by which a bad connection is waited for, or outlives its own cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.planting import Plant, replace


def gateway_waits_for_ever() -> None:
    """The gateway gives an RPC as long as it takes, and asks of no connection whether it lives."""
    from gateway import clusters, routes

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def times(rpc: Any, *, rest: bool) -> Any:
            found = original(rpc, rest=rest)
            return found | {"idle_timeout": "0s", "max_stream_duration": {}}

        return times

    replace(routes, "_times", make)
    replace(clusters, "_PING", lambda _: {"interval": "3600s", "timeout": "60s"})


def breakers_stay_open() -> None:
    """Who was not there once is never asked again."""
    from services.runtime.resilience.breaker import Breaker

    replace(Breaker, "blocked", lambda _: lambda self: 1.0 if self.opened else 0.0)


DEFECTS: dict[str, Plant] = {
    each.__name__: each for each in (gateway_waits_for_ever, breakers_stay_open)
}
