"""Cached values: whose they are, how long they stay, and what is not believed."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.shared import open_shared
from services.runtime.shared.api import MAX_TTL, MAX_VALUE, cache_key
from services.runtime.shared.memory import MemoryCaches
from tests.redis_server import RedisServer
from tests.services.runtime.shared.conftest import Pair

NAMES = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1, max_size=20)
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def a_tenant() -> str:
    return f"ten_{secrets.token_hex(8)}"


async def test_what_one_keeps_the_other_finds(shared: Pair) -> None:
    tenant = a_tenant()
    one, other = shared.one.caches.of("llm"), shared.other.caches.of("llm")
    assert await other.get(tenant, "k") is None
    for value in (b"", b"\x00\xffvalue", b"x" * MAX_VALUE):
        await one.set(tenant, "k", value, 60)
        assert await other.get(tenant, "k") == value
    await other.delete(tenant, "k")
    assert await one.get(tenant, "k") is None
    await other.delete(tenant, "k")


async def test_tenants_and_modules_see_their_own_alone(shared: Pair) -> None:
    mine, yours = a_tenant(), a_tenant()
    await shared.one.caches.of("llm").set(mine, "k", b"secret", 60)
    assert await shared.one.caches.of("llm").get(yours, "k") is None
    assert await shared.one.caches.of("memory").get(mine, "k") is None
    for tenant in ("", "ten_a:ten_b", "\ud800", "x" * 600):
        with pytest.raises(ValueError, match=r"bytes|colon|surrogates"):
            await shared.one.caches.of("llm").get(tenant, "k")
    with pytest.raises(ValueError, match="colon"):
        await shared.one.caches.of("llm:x").get(mine, "k")


@given(st.tuples(NAMES, NAMES, KEYS), st.tuples(NAMES, NAMES, KEYS))
def test_no_two_have_the_same_name(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (cache_key(*one) == cache_key(*other)) == (one == other)


async def test_a_value_goes_when_its_time_is_over(shared: Pair) -> None:
    cache, tenant = shared.one.caches.of("llm"), a_tenant()
    await cache.set(tenant, "short", b"x", 0.05)
    await cache.set(tenant, "long", b"x", 60)
    await asyncio.sleep(0.1)
    assert [await cache.get(tenant, key) for key in ("short", "long")] == [None, b"x"]
    for ttl in (0, -1, float("nan"), float("inf"), MAX_TTL + 1):
        with pytest.raises(ValueError, match="time to live"):
            await cache.set(tenant, "long", b"y", ttl)


async def test_what_is_too_large_is_not_kept_and_what_it_replaces_goes(shared: Pair) -> None:
    cache, tenant = shared.one.caches.of("llm"), a_tenant()
    await cache.set(tenant, "k", b"old", 60)
    await cache.set(tenant, "k", b"x" * (MAX_VALUE + 1), 60)
    assert await cache.get(tenant, "k") is None


async def test_memory_is_bounded_by_number_and_by_size() -> None:
    caches = MemoryCaches(max_keys=3, max_bytes=10_000)
    cache = caches.of("llm")
    for key in "abc":
        await cache.set("ten", key, b"x", 60)
    assert await cache.get("ten", "a") == b"x"
    await cache.set("ten", "d", b"x", 60)
    # The one that was not used for longest made room.
    assert [await cache.get("ten", key) for key in "abcd"] == [b"x", None, b"x", b"x"]
    await cache.set("ten", "large", b"x" * 9_900, 60)
    assert await cache.get("ten", "large") is not None
    assert await cache.get("ten", "a") is None
    for _ in range(5):
        await cache.set("ten", "large", b"x" * 9_900, 60)
        await cache.delete("ten", "large")
    for key in "cd":
        await cache.delete("ten", key)
    assert len(caches) == caches._bytes == 0


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"hello", b"\x01\x00\x00\x00\x00hello"])
async def test_what_is_not_ours_is_a_miss(common_redis: RedisServer, garbage: bytes) -> None:
    tenant = a_tenant()
    async with open_shared(common_redis.url) as shared:
        cache = shared.caches.of("llm")
        common_redis.ask("SET", cache_key("llm", tenant, "k"), garbage)
        assert await cache.get(tenant, "k") is None
        await cache.set(tenant, "k", b"ours", 60)
        assert await cache.get(tenant, "k") == b"ours"
        cut = common_redis.ask("GET", cache_key("llm", tenant, "k"))[:-1]
        common_redis.ask("SET", cache_key("llm", tenant, "k"), cut)
        assert await cache.get(tenant, "k") is None


async def test_another_kind_of_value_is_a_miss_and_is_replaced(common_redis: RedisServer) -> None:
    tenant = a_tenant()
    async with open_shared(common_redis.url) as shared:
        cache = shared.caches.of("llm")
        common_redis.ask("RPUSH", cache_key("llm", tenant, "k"), "x")
        assert await cache.get(tenant, "k") is None
        assert shared.whole
        await cache.set(tenant, "k", b"ours", 60)
        assert await cache.get(tenant, "k") == b"ours"
