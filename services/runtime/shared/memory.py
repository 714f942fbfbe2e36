"""What replicas share, for a process that is alone; and what stands in while Redis is away.

Everything is bounded: whoever makes up keys cannot fill the memory.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.runtime.shared import gcra
from services.runtime.shared.api import MAX_VALUE, cache_key, check_key, check_notice, check_ttl
from services.runtime.shared.topics import Listener, Topics

_MAX_LIMITED = 50_000
_MAX_CACHED = 10_000
_MAX_CACHED_BYTES = 64 * 1024 * 1024


class MemoryNotices:
    """News within this process; see `api.Notices`."""

    def __init__(self, *, working: bool) -> None:
        self._topics = Topics()
        self.working = working

    async def publish(self, topic: str, payload: bytes = b"") -> None:
        """See `api.Notices`."""
        check_notice(topic, payload)
        self._topics.tell(topic, payload)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[Listener]:
        """See `api.Notices`."""
        check_notice(topic, b"")
        listener = self._topics.add(topic)
        try:
            yield listener
        finally:
            self._topics.remove(topic, listener)


class MemoryLimiter:
    """Limits of this process; see `api.Limiter`.

    Where there are too many keys, the one goes that is the nearest to being wholly free: to forget
    it gives away the least.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, max_keys: int = _MAX_LIMITED
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._tats: dict[str, int] = {}
        # The same by time. A key that took again has entries that are no longer true, too.
        self._order: list[tuple[int, str]] = []

    async def take(self, key: str, rate_per_second: float, burst: int, cost: int = 1) -> float:
        """See `api.Limiter`."""
        check_key(key)
        asked = gcra.terms(rate_per_second, burst, cost)
        now = round(self._clock() * gcra.SECOND)
        while self._order and self._order[0][0] <= now:
            self._forget_first()
        tat, wait = gcra.take(self._tats.get(key), now, asked)
        if wait:
            return wait / gcra.SECOND
        self._tats[key] = tat
        heapq.heappush(self._order, (tat, key))
        while len(self._tats) > self._max_keys:
            self._forget_first()
        if len(self._order) > 2 * self._max_keys:
            self._order = [(at, each) for each, at in self._tats.items()]
            heapq.heapify(self._order)
        return 0.0

    def _forget_first(self) -> None:
        tat, key = heapq.heappop(self._order)
        if self._tats.get(key) == tat:
            del self._tats[key]

    def __len__(self) -> int:
        return len(self._tats)


class MemoryCaches:
    """Cached values of this process, the least recently used of which go first."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = _MAX_CACHED,
        max_bytes: int = _MAX_CACHED_BYTES,
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def of(self, module: str) -> MemoryCache:
        """See `api.Caches`."""
        return MemoryCache(self, module)

    def get(self, key: str) -> bytes | None:
        """A value that has not expired."""
        found = self._values.get(key)
        if found is None:
            return None
        value, end = found
        if end <= self._clock():
            self.delete(key)
            return None
        self._values.move_to_end(key)
        return value

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value if it is not too large."""
        self.delete(key)
        if len(value) > MAX_VALUE:
            return
        self._values[key] = value, self._clock() + ttl
        self._bytes += _size(key, value)
        while len(self._values) > self._max_keys or self._bytes > self._max_bytes:
            self.delete(next(iter(self._values)))

    def delete(self, key: str) -> None:
        """Forget a value."""
        found = self._values.pop(key, None)
        if found is not None:
            self._bytes -= _size(key, found[0])

    def __len__(self) -> int:
        return len(self._values)


class MemoryCache:
    """The cache of one module; see `api.Cache`."""

    def __init__(self, all_values: MemoryCaches, module: str) -> None:
        self._all = all_values
        self._module = module

    async def get(self, tenant_id: str, key: str) -> bytes | None:
        """See `api.Cache`."""
        return self._all.get(cache_key(self._module, tenant_id, key))

    async def set(self, tenant_id: str, key: str, value: bytes, ttl: float) -> None:
        """See `api.Cache`."""
        check_ttl(ttl)
        self._all.set(cache_key(self._module, tenant_id, key), value, ttl)

    async def delete(self, tenant_id: str, key: str) -> None:
        """See `api.Cache`."""
        self._all.delete(cache_key(self._module, tenant_id, key))


class MemoryShared:
    """What one process shares with itself; see `api.Shared`."""

    whole = True

    def __init__(self, *, alone: bool = True) -> None:
        """Prepare.

        Args:
            alone: Whether there is no other process that news would have to reach.
        """
        self.notices = MemoryNotices(working=alone)
        self.limiter = MemoryLimiter()
        self.caches = MemoryCaches()


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value)
