"""What replicas share, over Redis: one connection for commands, one for news of all topics."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlparse

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from services.runtime import log
from services.runtime.shared import gcra
from services.runtime.shared.api import (
    MAX_NOTICE,
    MAX_VALUE,
    SharedUrlError,
    cache_key,
    check_key,
    check_notice,
    check_ttl,
)
from services.runtime.shared.link import CONNECT_SECONDS, Away, Command, Link, Talk
from services.runtime.shared.memory import MemoryLimiter
from services.runtime.shared.topics import Listener, Topics
from services.runtime.tasks import end

_logger = log.get(__name__)
_FIRST_SECONDS = 1.0
_ORIGIN_BYTES = 8
_CHUNK = 500
_SCRIPT = hashlib.sha1(gcra.LUA.encode(), usedforsecurity=False).hexdigest()
# A key of a cache names a module and a tenant; this names none.
_LIMIT = "plexus:limit::"
_FORM = b"\x01"
_HEAD_BYTES = len(_FORM) + 4
_DATABASE = re.compile(r"/?[0-9]*")
# Time is ours to keep, and what we send and get are bytes.
_FIXED = {
    "protocol": 2,
    "decode_responses": False,
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_SECONDS,
    "retry_on_timeout": False,
    "health_check_interval": 0,
    "client_name": "plexus",
    "driver_info": None,
}
_ADVICE = (
    "PLEXUS_REDIS_URL is no address of a Redis. It looks like redis://:password@host:6379/0, with "
    "rediss for TLS, or unix:///path/of/socket?db=0; what is special in a password is escaped."
)


class RedisNotices:
    """News for all processes; see `api.Notices`.

    Listeners in this process hear at once and not by way of Redis, so they hear without one too.
    """

    def __init__(
        self,
        database: int,
        commands: Link,
        connect: Callable[[], Any],
        changed: Callable[[Exception | None], None],
    ) -> None:
        """Prepare.

        Args:
            database: Its number; topics are common to all databases of a Redis.
            commands: Where to publish.
            connect: Makes the connection to listen on.
            changed: See `Link`.
        """
        self._prefix = f"plexus:notice:{database}:"
        self._origin = secrets.token_bytes(_ORIGIN_BYTES)
        self._topics = Topics()
        self._commands = commands
        self.link = Link(connect, self._resubscribe, changed, self._heard)

    @property
    def working(self) -> bool:
        """See `api.Notices`."""
        return self._commands.up and self.link.up

    async def publish(self, topic: str, payload: bytes = b"") -> None:
        """See `api.Notices`; it is on its way when this returns."""
        check_notice(topic, payload)
        self._topics.tell(topic, payload)
        self._commands.post("PUBLISH", self._prefix + topic, self._origin + payload)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[Listener]:
        """See `api.Notices`."""
        check_notice(topic, b"")
        listener = self._topics.add(topic)
        try:
            await self._join(topic)
            yield listener
        finally:
            if self._topics.remove(topic, listener):
                self.link.post("UNSUBSCRIBE", self._prefix + topic)

    async def _join(self, topic: str) -> None:
        if not self.working:  # nobody is heard now: do not wait for it either
            self.link.post("SUBSCRIBE", self._prefix + topic)
            return
        with suppress(Away, ResponseError):
            await self.link.call("SUBSCRIBE", self._prefix + topic)

    def nudge_all(self) -> None:
        """Let every listener look at the database: what it relied on has changed."""
        self._topics.nudge_all()

    async def _resubscribe(self, talk: Talk) -> None:
        """Subscribe to every topic, and to those that come and go meanwhile."""
        known: set[str] = set()
        while known != self._topics.names:
            missing = set(islice(self._topics.names - known, _CHUNK))
            left = known - self._topics.names
            commands: list[Command] = [("SUBSCRIBE", self._prefix + each) for each in missing]
            commands += [("UNSUBSCRIBE", self._prefix + each) for each in left]
            await talk(commands)
            known = (known | missing) - left

    def _heard(self, message: list[Any]) -> None:
        _, channel, content = message
        if not content.startswith(self._origin):
            payload = content[_ORIGIN_BYTES : _ORIGIN_BYTES + MAX_NOTICE]
            self._topics.tell(channel.decode().removeprefix(self._prefix), payload)


class RedisLimiter:
    """Limits over all replicas by Redis's clock; see `api.Limiter`."""

    def __init__(self, commands: Link) -> None:
        self._commands = commands
        self._alone = MemoryLimiter()

    async def take(self, key: str, rate_per_second: float, burst: int, cost: int = 1) -> float:
        """See `api.Limiter`."""
        check_key(key)
        asked = gcra.terms(rate_per_second, burst, cost)
        try:
            return await self._take(key, asked) / gcra.SECOND
        except (Away, ResponseError):
            return await self._alone.take(key, rate_per_second, burst, cost)

    async def _take(self, key: str, asked: gcra.Terms) -> int:
        arguments = (1, _LIMIT + key, asked.increment, asked.tolerance)
        try:
            return int(await self._commands.call("EVALSHA", _SCRIPT, *arguments))
        except NoScriptError:  # somebody flushed it
            return int(await self._commands.call("EVAL", gcra.LUA, *arguments))


class RedisCaches:
    """Cached values that all replicas see; see `api.Caches`."""

    def __init__(self, commands: Link) -> None:
        self._commands = commands

    def of(self, module: str) -> RedisCache:
        """See `api.Caches`."""
        return RedisCache(self._commands, module)


class RedisCache:
    """The cache of one module; see `api.Cache`.

    A value is kept with a checksum: what somebody else wrote there, or cut, is a miss.
    """

    def __init__(self, commands: Link, module: str) -> None:
        self._commands = commands
        self._module = module

    async def get(self, tenant_id: str, key: str) -> bytes | None:
        """See `api.Cache`."""
        try:
            kept = await self._commands.call("GET", cache_key(self._module, tenant_id, key))
        except (Away, ResponseError):
            return None
        if kept is None:
            return None
        value: bytes = kept[_HEAD_BYTES:]
        return value if kept[:_HEAD_BYTES] == _head(value) else None

    async def set(self, tenant_id: str, key: str, value: bytes, ttl: float) -> None:
        """See `api.Cache`."""
        check_ttl(ttl)
        if len(value) > MAX_VALUE:
            await self.delete(tenant_id, key)
            return
        name = cache_key(self._module, tenant_id, key)
        with suppress(Away, ResponseError):
            await self._commands.call(
                "SET", name, _head(value) + value, "PX", max(1, round(ttl * 1000))
            )

    async def delete(self, tenant_id: str, key: str) -> None:
        """See `api.Cache`."""
        with suppress(Away, ResponseError):
            await self._commands.call("DEL", cache_key(self._module, tenant_id, key))


class RedisShared:
    """What replicas share over one Redis; see `api.Shared`."""

    def __init__(self, url: str) -> None:
        """Prepare to connect.

        Raises:
            SharedUrlError: The URL is no address of a Redis.
        """
        connect = _connector(url)
        sample = connect()
        self._address = getattr(sample, "path", "") or f"{sample.host}:{sample.port}"
        self._commands = Link(connect, _try, self._changed)
        self.notices = RedisNotices(int(sample.db), self._commands, connect, self._changed)
        self.limiter = RedisLimiter(self._commands)
        self.caches = RedisCaches(self._commands)
        self._told: bool | None = None
        self._first = asyncio.Event()

    @property
    def whole(self) -> bool:
        """See `api.Shared`."""
        return self.notices.working

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Stay connected while the block runs, or try to."""
        tasks = [
            asyncio.create_task(link.run(), name=f"redis.{name}")
            for name, link in (("commands", self._commands), ("notices", self.notices.link))
        ]
        try:
            # Limits should hold from the first call on. A Redis that is away delays no start.
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_SECONDS):
                    await self._first.wait()
            yield
        finally:
            await end(tasks)

    def _changed(self, error: Exception | None) -> None:
        if self.whole == self._told or (error is None and not self.whole):
            return
        if error is not None:
            _logger.warning("redis_lost", address=self._address, error=_why(error))
        elif self._told is not None:
            _logger.info("redis_found", address=self._address)
        self._told = self.whole
        self._first.set()
        self.notices.nudge_all()


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[RedisShared]:
    """See `open_shared`."""
    shared = RedisShared(url)
    async with shared.connected():
        yield shared


async def _try(talk: Talk) -> None:
    """Whether we may write and run our script, which Redis then knows."""
    await talk([("EVAL", gcra.LUA, 1, _LIMIT, 1, 1)])


def _connector(url: str) -> Callable[[], Any]:
    """What makes connections to a Redis.

    Raises:
        SharedUrlError: The URL is no address of a Redis.
    """
    try:
        parsed = urlparse(url)
        # The client would take what an unescaped password leaves behind for nothing at all.
        if parsed.fragment or not (parsed.scheme == "unix" or _DATABASE.fullmatch(parsed.path)):
            raise ValueError
        options: dict[str, Any] = {"connection_class": Connection, **parse_url(url), **_FIXED}
        connect = partial(options.pop("connection_class"), **options)
        connect()
    except (ValueError, TypeError, RedisError):
        # What is wrong with it may be a piece of the password.
        raise SharedUrlError(_ADVICE) from None
    return connect


def _head(value: bytes) -> bytes:
    return _FORM + zlib.crc32(value).to_bytes(_HEAD_BYTES - len(_FORM))


def _why(error: Exception) -> str:
    """An error for the log. What a server says is left out: it may repeat what it was sent."""
    if isinstance(error, OSError) or type(error) is RedisConnectionError:
        return f"{type(error).__name__}: {error}"
    return type(error).__name__
