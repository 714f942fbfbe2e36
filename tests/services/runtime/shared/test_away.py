"""A Redis that is killed, frozen, never there, or no Redis: what callers notice of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.runtime.shared import Shared, SharedUrlError, open_shared
from services.runtime.shared.over_redis import RedisShared
from tests.redis_server import RedisServer, redis_server
from tests.services.runtime.shared.conftest import until

PASSWORD = "hunter2-hunter2"
Logged = list[dict[str, object]]


async def seconds(work: Awaitable[object]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def use_often(shared: Shared) -> None:
    for _ in range(100):
        await use_everything(shared)


def transitions(said: Logged) -> list[object]:
    return [line["event"] for line in said]


async def use_everything(shared: Shared) -> None:
    cache = shared.caches.of("llm")
    assert await shared.limiter.take("use", 1000, 10_000) == 0
    await cache.set("ten", "k", b"v", 60)
    assert await cache.get("ten", "k") is None
    await cache.delete("ten", "k")
    async with shared.notices.subscribe("use") as listener:
        await shared.notices.publish("use", b"here")
        # In the same process they are heard even so.
        assert await listener.wait(0) == b"here"


async def test_a_killed_redis_costs_nothing_and_comes_back_by_itself(
    redis: RedisServer, said: Logged
) -> None:
    async with open_shared(redis.url) as shared:
        assert shared.whole and said == []
        assert await shared.limiter.take("key", 0.01, 1) == 0
        redis.kill()
        assert await seconds(shared.limiter.take("other", 0.01, 1)) < 0.2
        await until(lambda: not shared.whole, 0.5)
        # Meanwhile each process limits by itself.
        assert await shared.limiter.take("key", 0.01, 1) == 0
        assert await shared.limiter.take("key", 0.01, 1) > 0
        assert await seconds(use_often(shared)) < 2
        await asyncio.sleep(1.5)
        redis.start()
        await until(lambda: shared.whole, 2)
        assert await shared.limiter.take("key", 0.01, 1) == 0
        assert await shared.limiter.take("key", 0.01, 1) > 0
        assert transitions(said) == ["redis_lost", "redis_found"]


async def test_a_frozen_redis_is_noticed_and_found_again(redis: RedisServer, said: Logged) -> None:
    async with open_shared(redis.url) as shared:
        await shared.caches.of("llm").set("ten", "k", b"kept", 60)
        redis.freeze()
        # Many at once wait for the same silence, not one after the other.
        assert (
            await seconds(
                asyncio.gather(*(shared.limiter.take(f"key{n}", 1, 1) for n in range(100)))
            )
            < 0.4
        )
        await until(lambda: not shared.whole, 0.5)
        assert await seconds(use_often(shared)) < 2
        await asyncio.sleep(1.5)
        assert not shared.whole
        redis.thaw()
        await until(lambda: shared.whole, 2)
        assert await shared.caches.of("llm").get("ten", "k") == b"kept"
        assert transitions(said) == ["redis_lost", "redis_found"]


async def test_silence_is_noticed_when_nobody_asks(redis: RedisServer) -> None:
    async with open_shared(redis.url) as shared, shared.notices.subscribe("t") as listener:
        redis.freeze()
        began = time.monotonic()
        assert await listener.wait(5) == b""
        assert not shared.notices.working
        assert time.monotonic() - began < 2


async def test_a_process_that_was_held_up_does_not_blame_redis(
    redis: RedisServer, said: Logged
) -> None:
    async with open_shared(redis.url) as shared:
        for pause in (0.15, 0.3, 0.6):
            waiting = asyncio.create_task(shared.limiter.take("key", 0.01, 3))
            for _ in range(4):
                await asyncio.sleep(0)
            time.sleep(pause)  # noqa: ASYNC251 - holding everything up is the point
            assert await waiting == 0
        assert await shared.limiter.take("key", 0.01, 3) > 0
        assert shared.whole and said == []


async def test_one_that_is_not_there_delays_no_start(tmp_path: Path, said: Logged) -> None:
    for url in (f"unix://{tmp_path}/none", "redis://127.0.0.1:1/0"):
        began = time.monotonic()
        async with open_shared(url) as shared:
            assert time.monotonic() - began < 1.5
            assert not shared.whole and not shared.notices.working
            await use_everything(shared)
            await asyncio.sleep(0.5)
        assert transitions(said) == ["redis_lost"]
        said.clear()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b":x\r\n"])
async def test_something_that_is_no_redis(answer: bytes, said: Logged) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_shared(f"redis://127.0.0.1:{port}") as shared:
            await use_everything(shared)
            assert not shared.whole
    assert transitions(said) == ["redis_lost"]


async def test_one_that_answers_nothing_from_the_start(said: Logged) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await seconds(_open_and_use(f"redis://127.0.0.1:{port}")) < 2


async def _open_and_use(url: str) -> None:
    async with open_shared(url) as shared:
        await use_everything(shared)


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "host:6379",
        f"redis://:{PASSWORD}@host:port",
        f"redis://:{PASSWORD}@host:99999",
        f"redis://:{PASSWORD}/x@host",
        f"redis://:a@{PASSWORD}/x@host",
        f"redis://:a#{PASSWORD}@host",
        f"redis://:{PASSWORD}@host/database",
        f"redis://:{PASSWORD}@host/0?surprise=1",
        f"redis://:{PASSWORD}@[host/0",
    ],
)
async def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SharedUrlError, match="PLEXUS_REDIS_URL") as told:
        async with open_shared(url):
            pass
    assert PASSWORD not in str(told.value)
    assert told.value.__suppress_context__


async def test_a_password_is_used_and_never_logged(said: Logged) -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder), PASSWORD) as server:
        async with open_shared(server.url) as shared:
            assert shared.whole
            server.kill()
            await until(lambda: not shared.whole, 1)
            server.start()
            await until(lambda: shared.whole, 2)
        for wrong in (server.url.replace(PASSWORD, f"{PASSWORD}x"), server.url.split("&")[0]):
            async with open_shared(wrong) as shared:
                assert not shared.whole
                await use_everything(shared)
    assert transitions(said) == ["redis_lost", "redis_found", "redis_lost", "redis_lost"]
    assert PASSWORD not in str(said) and PASSWORD not in repr(shared)


async def test_a_redis_that_repeats_what_it_is_sent_shows_nothing(said: Logged) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = await reader.read(1000)
        writer.write(b"-ERR unknown command " + sent.replace(b"\r\n", b" ") + b"\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_shared(f"redis://:{PASSWORD}@127.0.0.1:{port}") as shared:
            assert not shared.whole
    assert transitions(said) == ["redis_lost"]
    assert PASSWORD not in str(said)


@pytest.mark.parametrize(
    "refusing",
    [("CONFIG", "SET", "maxmemory", "1"), ("REPLICAOF", "127.0.0.1", "1")],
    ids=["full", "replica"],
)
async def test_one_that_refuses_to_write_is_away(
    redis: RedisServer, refusing: tuple[str, ...], said: Logged
) -> None:
    async with open_shared(redis.url) as shared:
        redis.ask(*refusing)
        assert await shared.limiter.take("key", 0.01, 1) == 0
        await until(lambda: not shared.whole, 1)
        await asyncio.sleep(1)
        assert transitions(said) == ["redis_lost"]


async def test_a_call_can_be_cancelled_anywhere(redis: RedisServer) -> None:
    async with open_shared(redis.url) as shared:
        cache = shared.caches.of("llm")
        await cache.set("ten", "k", b"mine", 60)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: shared.limiter.take("key", 1000, 1000),
            lambda: cache.set("ten", "other", b"other", 60),
            lambda: cache.get("ten", "other"),
        ]
        for turns in range(10):
            for call in calls:
                task = asyncio.ensure_future(call())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
                # Nobody is given the answer of another.
                assert await cache.get("ten", "k") == b"mine"
        assert shared.whole
        redis.freeze()
        task = asyncio.create_task(shared.limiter.take("key", 1, 1))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_leaves_nothing_behind(redis: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with open_shared(redis.url) as shared, shared.notices.subscribe("t"):
        pass
    assert asyncio.all_tasks() == before
    assert not shared.whole
    await use_everything(shared)
    with pytest.raises(ZeroDivisionError):
        async with open_shared(redis.url):
            1 / 0  # noqa: B018 - what the block raises is not lost
    redis.freeze()
    assert await seconds(_open_and_use(redis.url)) < 2
    assert asyncio.all_tasks() == before


async def test_opening_can_be_cancelled(redis: RedisServer) -> None:
    redis.freeze()
    before = asyncio.all_tasks()
    task = asyncio.create_task(_open_and_use(redis.url))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


def test_what_is_shared_shows_no_password() -> None:
    assert PASSWORD not in repr(vars(RedisShared(f"redis://:{PASSWORD}@host")))
