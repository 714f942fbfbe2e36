"""Other bounds of the gateway than it comes with, and a process that forgets nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.faults.planting import Plant, replace

_KEPT_BYTES = 200_000


def _bounds(**values: float) -> None:
    from gateway.config import GatewayConfig

    def make(original: Callable[[Any], None]) -> Callable[[Any], None]:
        def post_init(self: Any) -> None:
            object.__setattr__(self, "bounds", dataclasses.replace(self.bounds, **values))
            original(self)

        return post_init

    replace(GatewayConfig, "__post_init__", make)


def bounds_are_short() -> None:
    """No defect: what takes half a minute takes seconds."""
    _bounds(header_seconds=1.0, request_seconds=2.0, idle_connection_seconds=1.5)


def nothing_is_bounded() -> None:
    """Whoever connects may take as long as they like."""
    _bounds(header_seconds=0.0, request_seconds=0.0)


def everything_is_kept() -> None:
    """Something of every call stays in memory."""
    from services.runtime.interceptors import adapter

    kept: list[bytes] = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def begin_call(*arguments: Any) -> Any:
            kept.append(b"x" * _KEPT_BYTES)
            return original(*arguments)

        return begin_call

    replace(adapter, "begin_call", make)


DEFECTS: dict[str, Plant] = {
    each.__name__: each for each in (bounds_are_short, nothing_is_bounded, everything_is_kept)
}
