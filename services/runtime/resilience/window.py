"""Counts of what went well and badly in the last seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Window:
    """Two counts over a sliding window, kept in buckets that are forgotten one at a time."""

    def __init__(self, seconds: float, buckets: int = 10, clock: Clock = time.monotonic) -> None:
        self.good = 0
        self.bad = 0
        self._width = seconds / buckets
        self._clock = clock
        self._buckets = [[0, 0] for _ in range(buckets)]
        self._last = int(clock() / self._width)

    def add(self, good: int = 0, bad: int = 0) -> None:
        """Count something now."""
        self.forget()
        bucket = self._buckets[self._last % len(self._buckets)]
        bucket[0] += good
        bucket[1] += bad
        self.good += good
        self.bad += bad

    def forget(self) -> None:
        """Drop what is older than the window."""
        now = int(self._clock() / self._width)
        for each in range(self._last + 1, min(now, self._last + len(self._buckets)) + 1):
            bucket = self._buckets[each % len(self._buckets)]
            self.good -= bucket[0]
            self.bad -= bucket[1]
            bucket[0] = bucket[1] = 0
        self._last = max(now, self._last)

    def clear(self) -> None:
        """Forget everything."""
        self.good = self.bad = 0
        for bucket in self._buckets:
            bucket[0] = bucket[1] = 0
