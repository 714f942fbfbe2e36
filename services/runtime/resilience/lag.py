"""How late the event loop is, and a limit that follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_PROBE_SECONDS = 0.1
# A loop this late has a queue that callers feel.
_LATE_SECONDS = 0.05
_DECREASE = 0.9
_INCREASE_SHARE = 1 / 64
_LEAST_SHARE = 1 / 16
# A queue that stands for so many probes is no burst (CoDel, Nichols and Jacobson, 2012).
_STANDING = 5


class LagProbe:
    """Asks the event loop to be called in a tenth of a second, and sees when it is."""

    def __init__(self, observe: Callable[[float, float], None]) -> None:
        """Make one that is not started.

        Args:
            observe: Is told each lag, and the loop's time.
        """
        self.seconds = 0.0
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        loop = asyncio.get_running_loop()
        self._ask(loop)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + _PROBE_SECONDS
        self._timer = loop.call_at(due, self._tell, loop, due)

    def _tell(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.seconds = max(0.0, now - due)
        self._ask(loop)
        self._observe(self.seconds, now)


class AdaptiveLimit:
    """A limit that rises by addition and falls by multiplication (Chiu and Jain, 1989).

    As AIMDLimit of Netflix's concurrency-limits does; what is to stay short here is the queue of
    the event loop.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.value = float(most)
        self._least = max(1.0, most * _LEAST_SHARE)
        self._late = 0

    def observe(self, lag: float, used: int) -> None:
        """Follow the lag, where calls are under way that it may come from."""
        self._late = self._late + 1 if lag > _LATE_SECONDS and used else 0
        if not self._late:
            self.value = min(self.most, self.value + self.most * _INCREASE_SHARE)
        elif self._late >= _STANDING:
            # From what there is, and not from a bound that was never near.
            self.value = max(self._least, min(self.value, 2.0 * used) * _DECREASE)
