"""News between processes, and within one."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack

import pytest

from services.runtime.shared import Subscription, open_shared
from services.runtime.shared.api import MAX_KEY, MAX_NOTICE
from tests.redis_server import RedisServer
from tests.services.runtime.shared.conftest import Pair, until


def a_topic() -> str:
    return f"test.{secrets.token_hex(8)}"


async def test_what_one_publishes_the_other_hears(shared: Pair) -> None:
    topic = a_topic()
    assert shared.one.notices.working and shared.other.notices.working
    async with shared.other.notices.subscribe(topic) as listener:
        await shared.one.notices.publish(topic, b"\x00 7")
        assert await listener.wait(2) == b"\x00 7"
        assert await listener.wait(0.01) is None
        await shared.other.notices.publish(topic)
        assert await listener.wait(2) == b""


async def test_a_process_hears_itself_once(shared: Pair) -> None:
    topic = a_topic()
    async with shared.one.notices.subscribe(topic) as listener:
        await shared.one.notices.publish(topic, b"x")
        assert await listener.wait(0) == b"x"
        assert await listener.wait(0.1) is None


async def test_all_who_listen_hear_and_nobody_else(shared: Pair) -> None:
    topic, another = a_topic(), a_topic()
    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(each.notices.subscribe(topic))
            for each in (shared.one, shared.other, shared.other)
        ]
        deaf = await stack.enter_async_context(shared.other.notices.subscribe(another))
        await shared.one.notices.publish(topic, b"all")
        assert [await each.wait(2) for each in listeners] == [b"all"] * 3
        assert await deaf.wait(0.05) is None


async def test_one_who_leaves_takes_the_topic_from_no_other(shared: Pair) -> None:
    topic = a_topic()
    async with shared.other.notices.subscribe(topic) as stays:
        async with shared.other.notices.subscribe(topic):
            pass
        await shared.one.notices.publish(topic, b"still")
        assert await stays.wait(2) == b"still"
    for _ in range(20):  # the last to leave, and the next to come
        async with shared.other.notices.subscribe(topic) as listener:
            await shared.one.notices.publish(topic, b"again")
            assert await listener.wait(2) == b"again"


async def test_thousands_of_topics(shared: Pair) -> None:
    topics = [a_topic() for _ in range(5000)]
    async with AsyncExitStack() as stack:
        listeners = await asyncio.gather(
            *(stack.enter_async_context(shared.other.notices.subscribe(each)) for each in topics)
        )
        assert shared.other.notices.working
        async with asyncio.timeout(20):
            for topic, listener in zip(topics, listeners, strict=True):
                heard = None
                # Under such a rush a subscription may take longer than entering it may wait.
                while heard != topic.encode():
                    await shared.one.notices.publish(topic, topic.encode())
                    heard = await listener.wait(0.5)


async def test_a_slow_listener_is_given_the_newest_alone(shared: Pair) -> None:
    topic = a_topic()
    async with shared.other.notices.subscribe(topic) as listener:
        for number in range(2000):
            await shared.one.notices.publish(topic, b"%d" % number)
            if not number % 100:
                await asyncio.sleep(0)
        newest = None
        async with asyncio.timeout(5):
            while newest != b"1999":
                newest = await listener.wait(5)
        assert await listener.wait(0.05) is None


async def test_a_wait_that_is_cancelled_loses_nothing(shared: Pair) -> None:
    topic = a_topic()
    async with shared.other.notices.subscribe(topic) as listener:
        waiting = asyncio.create_task(listener.wait(10))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await shared.one.notices.publish(topic, b"kept")
        assert await listener.wait(2) == b"kept"


async def test_subscribing_can_be_cancelled_anywhere(shared: Pair) -> None:
    topic = a_topic()

    async def listen() -> None:
        async with shared.other.notices.subscribe(topic) as listener:
            await listener.wait(10)

    for turns in range(12):
        task = asyncio.create_task(listen())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with shared.other.notices.subscribe(topic) as listener:
        await shared.one.notices.publish(topic, b"well")
        assert await listener.wait(2) == b"well"
    assert shared.other.notices.working


async def test_bounds(shared: Pair) -> None:
    for topic, payload in (("", b""), ("x" * (MAX_KEY + 1), b""), ("x", b"x" * (MAX_NOTICE + 1))):
        with pytest.raises(ValueError, match="bytes"):
            await shared.one.notices.publish(topic, payload)
    with pytest.raises(ValueError, match="surrogates"):
        async with shared.one.notices.subscribe("\ud800"):
            pass
    assert shared.one.whole


async def test_processes_without_a_redis_do_not_claim_to_hear_each_other() -> None:
    async with open_shared("") as one:
        assert not one.notices.working
        assert one.whole


async def test_a_lost_redis_lets_everyone_look_at_once(redis: RedisServer) -> None:
    async with (
        open_shared(redis.url) as one,
        open_shared(redis.url) as other,
        AsyncExitStack() as stack,
    ):
        listeners: list[Subscription] = [
            await stack.enter_async_context(other.notices.subscribe(a_topic())) for _ in range(100)
        ]
        redis.kill()
        # Each is told that it can no longer rely on notices, and again when it can.
        assert [await each.wait(2) for each in listeners] == [b""] * 100
        assert not other.notices.working
        redis.start()
        await until(lambda: one.whole and other.whole, 2)
        assert [await each.wait(2) for each in listeners] == [b""] * 100


async def test_topics_are_subscribed_again_by_themselves(redis: RedisServer) -> None:
    topics = [a_topic() for _ in range(1200)]
    async with open_shared(redis.url) as one, open_shared(redis.url) as other:
        async with AsyncExitStack() as stack:
            for topic in topics[:1000]:
                await stack.enter_async_context(other.notices.subscribe(topic))
            redis.kill()
            await until(lambda: not other.whole, 1)
            for topic in topics[1000:]:  # nor does coming meanwhile wait or fail
                await stack.enter_async_context(other.notices.subscribe(topic))
            heard = await stack.enter_async_context(other.notices.subscribe("the.last"))
            redis.start()
            await until(lambda: one.whole and other.whole, 2)
            while await heard.wait(0.5) is not None:
                pass
            await one.notices.publish("the.last", b"heard")
            assert await heard.wait(2) == b"heard"
            assert redis.ask("PUBSUB", "NUMSUB", f"plexus:notice:0:{topics[0]}")[1] == 1
            assert len(redis.ask("PUBSUB", "CHANNELS")) == 1201
        await until(lambda: not redis.ask("PUBSUB", "CHANNELS"), 2)


async def test_what_strangers_publish_hurts_nobody(redis: RedisServer) -> None:
    async with open_shared(redis.url) as one, one.notices.subscribe("t") as listener:
        for content in (b"", b"x", b"\xff" * 100_000):
            redis.ask("PUBLISH", "plexus:notice:0:t", content)
            heard = await listener.wait(2)
            assert heard is not None and len(heard) <= MAX_NOTICE
        assert one.whole
