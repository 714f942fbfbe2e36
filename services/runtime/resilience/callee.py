"""What a process remembers of a module that it calls, and how it judges the answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from services.runtime.errors import (
    DeadlineExceeded,
    PlexusError,
    ResourceExhausted,
    Unavailable,
)
from services.runtime.resilience.breaker import Breaker
from services.runtime.resilience.bulkhead import Bulkhead
from services.runtime.resilience.retries import RetryBudget, full_jitter
from services.runtime.resilience.window import Clock
from services.runtime.status import DETAILS_KEY, from_rpc_error, to_status

# The caller keeps a part of its time, so that it can still answer when the callee did not.
_MARGIN_SHARE = 0.05
_LEAST_MARGIN = 0.01
_LONGEST_MARGIN = 0.25
# With less than this nothing can come back in time.
_LEAST_SECONDS = 0.01
# A call that had at least so much of the contract's time had all of it.
_FULL_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be under way to one module at a time.

    Streams have places of their own: a thousand runs that listen to a model leave room for the
    short calls that store what it says.
    """

    calls: int = 1024
    streams: int = 4096
    waiting: int = 1024
    seconds: float = 2.0


class Callee:
    """One module as its callers in this process know it."""

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        *,
        clock: Clock = time.monotonic,
        delay: Callable[[int], float] = full_jitter,
    ) -> None:
        self.name = name
        self.breaker = Breaker(clock)
        self.calls = Bulkhead(bounds.calls, bounds.waiting, bounds.seconds)
        self.streams = Bulkhead(bounds.streams, bounds.waiting, bounds.seconds)
        self.retries = RetryBudget(clock)
        self.retried = 0
        self.refused = 0
        self.delay = delay

    def unavailable(self, seconds: float) -> grpc.aio.AioRpcError:
        """The error while the breaker is open."""
        return self._refusal(
            Unavailable(f"{self.name} does not answer. Try again.", retry_after=seconds)
        )

    def full(self) -> grpc.aio.AioRpcError:
        """The error when too much is under way."""
        return self._refusal(
            ResourceExhausted(
                f"Too many calls to {self.name} are under way. Try again.",
                metadata={"limit": f"calls to {self.name}"},
                retry_after=1,
            )
        )

    def late(self) -> grpc.aio.AioRpcError:
        """The error for a call that could not be answered in time."""
        return self._refusal(DeadlineExceeded(f"No time was left to ask {self.name}."))

    def _refusal(self, error: PlexusError) -> grpc.aio.AioRpcError:
        self.refused += 1
        return as_rpc_error(error)


def as_rpc_error(error: PlexusError) -> grpc.aio.AioRpcError:
    """What a callee that answers with `error` looks like: callers need not know who refused."""
    status = to_status(error)
    return grpc.aio.AioRpcError(
        grpc.StatusCode[error.code.name],
        grpc.aio.Metadata(),
        grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString())),
        error.message,
    )


def allowance(remaining: float) -> float:
    """How long a callee may take when its caller has so many seconds."""
    return remaining - min(max(remaining * _MARGIN_SHARE, _LEAST_MARGIN), _LONGEST_MARGIN)


def too_late(timeout: float) -> bool:
    """Whether a call with so many seconds is not worth sending."""
    return timeout < _LEAST_SECONDS


def had_full_time(timeout: float | None, deadline: float) -> bool:
    """Whether a callee that did not answer in `timeout` broke its own contract's deadline."""
    return timeout is None or timeout >= deadline * _FULL_SHARE


def verdict(error: grpc.aio.AioRpcError, full_time: bool) -> bool | None:
    """Whether an error speaks for the callee (it answered), against it, or not at all.

    That a module is there but something behind it is not, such as a model's server, is an answer.
    """
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        return from_rpc_error(error).reason != Unavailable.default_reason
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return False if full_time else None
    return None if code is grpc.StatusCode.CANCELLED else True
