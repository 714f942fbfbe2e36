"""Limits: how the algorithm behaves, and that both implementations are the same one."""

from __future__ import annotations

import asyncio
import secrets
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from services.runtime.shared import gcra, open_shared
from services.runtime.shared.memory import MemoryLimiter
from tests.redis_server import RedisServer
from tests.services.runtime.shared.conftest import Pair

# The script with a clock that tests set.
SCRIPT = f"local now = tonumber(ARGV[3])\n{gcra.LUA_TAKE}"
# So slow that nothing expires in Redis, whose clock goes on, while an example runs.
RATES = st.floats(1e-5, 1e-3)
STEPS = st.lists(
    st.tuples(
        st.floats(0, 3), st.sampled_from("abc"), st.integers(1, 8), st.sampled_from((1, 1, 8))
    ),
    min_size=1,
    max_size=30,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_key() -> str:
    return f"test.{secrets.token_hex(8)}"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rate=RATES, burst=st.integers(8, 20), steps=STEPS)
def test_both_grant_the_same(
    common_redis: RedisServer, rate: float, burst: int, steps: list[tuple[float, str, int, int]]
) -> None:
    clock, run = Clock(), a_key()
    limiter = MemoryLimiter(clock=clock)
    clock.now = 1.7e9
    with Redis(unix_socket_path=str(common_redis.socket), protocol=2) as client:
        script = client.register_script(SCRIPT)
        for intervals, name, cost, raised in steps:
            clock.now += round(intervals / rate, 6)
            asked = gcra.terms(rate * raised, burst, cost)
            now = round(clock.now * gcra.SECOND)
            theirs = script(keys=[run + name], args=[asked.increment, asked.tolerance, now])
            ours = asyncio.run(limiter.take(run + name, rate * raised, burst, cost))
            assert theirs / gcra.SECOND == ours


@given(
    rate=st.floats(0.001, 1000),
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 50)), max_size=60),
)
def test_no_more_than_a_burst_and_the_rate(
    rate: float, burst: int, steps: list[tuple[int, int]]
) -> None:
    """In every stretch of time: what was granted fits the burst and what became free in it."""
    tat, now = None, 10**15
    interval = gcra.terms(rate, burst, 1).increment
    granted: list[tuple[int, int]] = []
    for pause, cost in steps:
        now += pause
        tat, wait = gcra.take(tat, now, gcra.terms(rate, burst, min(cost, burst)))
        if not wait:
            granted.append((now, min(cost, burst)))
        else:
            # The promise: after exactly that time it is granted, and not a microsecond sooner.
            asked = gcra.terms(rate, burst, min(cost, burst))
            assert gcra.take(tat, now + wait, asked)[1] == 0
            assert gcra.take(tat, now + wait - 1, asked)[1] == 1
    for first in range(len(granted)):
        total = 0
        for at, cost in granted[first:]:
            total += cost
            assert total <= burst + Fraction(at - granted[first][0], interval)


@given(st.one_of(st.none(), st.integers(0, 2**52)), st.integers(0, 2**52), st.integers(1, 9))
def test_no_wait_is_longer_than_it_takes_to_be_free(tat: int | None, now: int, cost: int) -> None:
    """Whatever was stored: a clock that was set back, or another limit, locks nobody out."""
    asked = gcra.terms(2.0, 9, cost)
    assert gcra.take(tat, now, asked)[1] <= asked.increment <= asked.tolerance


async def test_a_burst_is_granted_and_then_the_rate(shared: Pair) -> None:
    key = a_key()
    both = (shared.one.limiter, shared.other.limiter)
    # Slow enough that nothing becomes free while this runs.
    assert [await both[n % 2].take(key, 0.01, 10) for n in range(10)] == [0.0] * 10
    assert 90 < await both[0].take(key, 0.01, 10) <= 100
    assert 190 < await both[1].take(key, 0.01, 10, cost=2) <= 200
    assert await both[1].take(a_key(), 0.01, 10, cost=10) == 0


async def test_what_is_waited_for_is_granted(shared: Pair) -> None:
    key, began = a_key(), time.monotonic()
    for _ in range(5):
        while wait := await shared.one.limiter.take(key, 20, 1):
            assert wait <= 0.05
            await asyncio.sleep(wait)
    assert 0.2 <= time.monotonic() - began < 2


async def test_many_at_once_get_no_more_than_the_burst(shared: Pair) -> None:
    key = a_key()
    both = (shared.one.limiter, shared.other.limiter)
    waits = await asyncio.gather(*(both[n % 2].take(key, 0.001, 100) for n in range(400)))
    assert waits.count(0.0) == 100


@pytest.mark.parametrize(
    ("rate", "burst", "cost"),
    [
        (0, 1, 1),
        (-1, 1, 1),
        (float("nan"), 1, 1),
        (float("inf"), 1, 1),
        (1e-300, 1, 1),
        (1, 0, 1),
        (1, 1, 0),
        (1, 1, 2),
        (1, 10**9, 1),
    ],
)
async def test_bounds(shared: Pair, rate: float, burst: int, cost: int) -> None:
    with pytest.raises(ValueError, match=r"rate|cost|burst"):
        await shared.one.limiter.take("key", rate, burst, cost)
    with pytest.raises(ValueError, match="bytes"):
        await shared.one.limiter.take("", 1, 1)


async def test_made_up_keys_do_not_push_out_who_is_limited() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock, max_keys=100)
    assert await limiter.take("busy", 1, 50, cost=50) == 0
    for number in range(10_000):
        clock.now += 0.0001
        await limiter.take(f"made.up.{number}", 1, 50)
        assert len(limiter) <= 100
    assert await limiter.take("busy", 1, 50, cost=50) == pytest.approx(49)
    clock.now += 60
    assert await limiter.take("busy", 1, 50, cost=50) == 0
    assert len(limiter) == 1


async def test_a_key_that_takes_often_costs_no_memory() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock, max_keys=100)
    for _ in range(5000):
        clock.now += 0.001
        assert await limiter.take("often", 1000, 1000) == 0
        assert await limiter.take("seldom", 1, 1_000_000) == 0
    assert len(limiter._order) <= 201
    assert await limiter.take("seldom", 1, 1_000_000, cost=995_006) > 0


@pytest.mark.parametrize(
    "garbage", [b"", b"hello", b"nan", b"-inf", b"inf", b"1e300", b"\x00\xff", b"0x10", b"9" * 16]
)
async def test_garbage_under_a_key_locks_nobody_out(
    common_redis: RedisServer, garbage: bytes
) -> None:
    key = a_key()
    common_redis.ask("SET", f"plexus:limit::{key}", garbage)
    async with open_shared(common_redis.url) as shared:
        assert 0 <= await shared.limiter.take(key, 1, 3) <= 3
        assert shared.whole


async def test_another_kind_of_value_under_a_key_is_replaced(common_redis: RedisServer) -> None:
    key = a_key()
    common_redis.ask("RPUSH", f"plexus:limit::{key}", "x")
    async with open_shared(common_redis.url) as shared:
        assert [await shared.limiter.take(key, 0.01, 2) for _ in range(2)] == [0, 0]
        assert await shared.limiter.take(key, 0.01, 2) > 0
        assert shared.whole


async def test_a_script_that_was_flushed_is_sent_again(redis: RedisServer) -> None:
    async with open_shared(redis.url) as one, open_shared(redis.url) as other:
        assert await one.limiter.take("key", 0.01, 2) == 0
        redis.ask("SCRIPT", "FLUSH")
        assert await one.limiter.take("key", 0.01, 2) == 0
        assert await other.limiter.take("key", 0.01, 2) > 0


async def test_what_is_free_again_leaves_nothing_in_redis(redis: RedisServer) -> None:
    async with open_shared(redis.url) as shared:
        assert await shared.limiter.take("key", 100, 10, cost=10) == 0
        assert 0 < redis.ask("PTTL", "plexus:limit::key") <= 100
        await asyncio.sleep(0.15)
        assert redis.ask("KEYS", "*") == []
