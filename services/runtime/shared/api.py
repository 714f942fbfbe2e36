"""What replicas share, as protocols: what a module may count on, whatever stands behind it.

No method raises because Redis is away. The first to find out waits for a tenth of a second, those
after it not at all.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

MAX_KEY = 512
MAX_NOTICE = 1024
MAX_VALUE = 256 * 1024
MAX_TTL = 31_622_400.0


class SharedUrlError(Exception):
    """The address of Redis is none. The text says what one looks like, and shows no password."""


class Subscription(Protocol):
    """One listener to one topic."""

    async def wait(self, seconds: float) -> bytes | None:
        """The newest notice since the last wait, or None after so many seconds.

        However many came meanwhile, one is kept, so a slow listener costs nothing. An empty one
        may also mean that notices began or ceased to work: look at the database then, too.
        """
        ...


class Notices(Protocol):
    """Tells whoever listens that something changed: best effort, at most once.

    Never the only way to learn it. A listener subscribes first, then reads the database, then
    waits; it reads again after each notice and now and then without one: seldom while notices
    work, often while they do not.
    """

    @property
    def working(self) -> bool:
        """Whether what any process publishes reaches the listeners in this one, as far as known."""
        ...

    async def publish(self, topic: str, payload: bytes = b"") -> None:
        """Tell everyone who listens to a topic, in this process and others.

        Args:
            topic: Such as `agents.run.run_01…`.
            payload: At most 1 KiB, for a hint such as a sequence number.

        Raises:
            ValueError: The topic or the payload is too long.
        """
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """Listen to a topic; what is published once the block is entered is heard in it.

        Raises:
            ValueError: The topic is too long.
        """
        ...


class Limiter(Protocol):
    """Limits how often something happens, over all replicas."""

    async def take(self, key: str, rate_per_second: float, burst: int, cost: int = 1) -> float:
        """Take from what a key may do: 0 where it is granted, else the seconds until it can be.

        What is not granted costs nothing. While Redis is away each process limits by itself.

        Args:
            key: Whose limit, such as `llm.tokens.ten_01…`.
            rate_per_second: How much becomes free in a second, at most a million.
            burst: How much can be taken at once after a pause.
            cost: How much is taken, at most the burst.

        Raises:
            ValueError: A number is out of bounds, or the key is too long.
        """
        ...


class Cache(Protocol):
    """Values of one module that can be made again. A key belongs to a tenant, always.

    While Redis is away everything is a miss. What a `set` or `delete` of that time did not reach
    may still be found afterwards, until its `ttl` ends: choose one that can be lived with.
    """

    async def get(self, tenant_id: str, key: str) -> bytes | None:
        """The value of a tenant's key, or None.

        Raises:
            ValueError: There is no tenant, or the key is too long.
        """
        ...

    async def set(self, tenant_id: str, key: str, value: bytes, ttl: float) -> None:
        """Keep a value for at most `ttl` seconds; one above 256 KiB is not kept.

        Raises:
            ValueError: There is no tenant, the key is too long, or the time is not positive or
                above a year.
        """
        ...

    async def delete(self, tenant_id: str, key: str) -> None:
        """Forget a value.

        Raises:
            ValueError: There is no tenant, or the key is too long.
        """
        ...


class Caches(Protocol):
    """The caches of all modules."""

    def of(self, module: str) -> Cache:
        """The cache of a module, which sees its own keys alone."""
        ...


class Shared(Protocol):
    """What replicas share."""

    @property
    def notices(self) -> Notices:
        """News of what changed."""
        ...

    @property
    def limiter(self) -> Limiter:
        """Limits over all replicas."""
        ...

    @property
    def caches(self) -> Caches:
        """Values that can be made again."""
        ...

    @property
    def whole(self) -> bool:
        """Whether all of it works as it should; False while a Redis that is set is away."""
        ...


def check_key(key: str) -> None:
    """Bound what a caller names.

    Raises:
        ValueError: It is empty, too long or no Unicode.
    """
    if not 0 < len(key.encode()) <= MAX_KEY:
        raise ValueError(f"a key has 1 to {MAX_KEY} bytes")


def check_notice(topic: str, payload: bytes) -> None:
    """Bound what is published.

    Raises:
        ValueError: The topic or the payload is too long.
    """
    check_key(topic)
    if len(payload) > MAX_NOTICE:
        raise ValueError(f"a notice has at most {MAX_NOTICE} bytes")


def check_ttl(ttl: float) -> None:
    """Bound how long a value is kept.

    Raises:
        ValueError: It is no time at all or above a year.
    """
    if not 0 < ttl <= MAX_TTL:
        raise ValueError("a time to live is above 0 and at most a year")


def cache_key(module: str, tenant_id: str, key: str) -> str:
    """The full name of a cached value: no two triples have the same.

    Raises:
        ValueError: The module or the tenant is missing or could be taken for two, or the key is
            too long.
    """
    for part in (module, tenant_id):
        check_key(part)
        if ":" in part:
            raise ValueError("the name of a module and the id of a tenant have no colon")
    check_key(key)
    return f"plexus:{module}:{tenant_id}:{key}"
