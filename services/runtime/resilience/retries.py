"""When a call is made again, how soon, and how many may be."""

from __future__ import annotations

import random
import time

from services.runtime.resilience.window import Clock, Window

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 1.0
_WINDOW_SECONDS = 10.0
_SHARE = 0.2
_FLOOR = 2.0
MOST_TRIES = 4


def full_jitter(tries: int) -> float:
    """How long to wait after so many tries: anything from nothing to a bound that doubles.

    "Full Jitter" of the AWS Architecture Blog, "Exponential Backoff And Jitter": callers that
    failed together do not come back together.
    """
    return random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (tries - 1)))  # noqa: S311


class RetryBudget:
    """Bounds retries by calls, as Finagle's RetryBudget does.

    In ten seconds a fifth of the calls may be made again, and two a second whatever their number,
    so that a callee in trouble gets 1.2 times its load and not four times.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        # Good is a call, bad is one made again.
        self._window = Window(_WINDOW_SECONDS, clock=clock)

    def spent(self) -> None:
        """A call is made for the first time."""
        self._window.add(good=1)

    def take(self) -> bool:
        """Whether one may be made again; if so it is counted."""
        self._window.forget()
        if self._window.bad + 1 > self._window.good * _SHARE + _FLOOR * _WINDOW_SECONDS:
            return False
        self._window.add(bad=1)
        return True
