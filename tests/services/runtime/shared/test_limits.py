"""A tenant's limit holds over two processes that share a Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from plexus.options.v1.options_pb2 import Role

from services.runtime.context import CallContext, Principal
from services.runtime.contract import Access, Method, RateClass
from services.runtime.errors import ResourceExhausted
from services.runtime.interceptors.limits import SharedLimits
from services.runtime.shared import MemoryShared, open_shared
from tests.redis_server import redis_server
from tests.support import settings_in

READ = Method("/x.Y/Read", Access.PERMISSION, "x.read", 1, 5.0, True, RateClass.READ, 1)


def call(tenant: str, *, mesh: bool = False) -> CallContext:
    who = Principal(tenant, "usr_1", "tok_1", frozenset({int(Role.ROLE_OWNER)}), mesh=mesh)
    return CallContext("request", "trace", who)


async def granted(limits: SharedLimits, tenant: str, number: int, *, mesh: bool = False) -> int:
    asked = (limits.take(call(tenant, mesh=mesh), READ) for _ in range(number))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [each for each in answers if each is not None]
    assert all(isinstance(each, ResourceExhausted) for each in refused)
    return number - len(refused)


async def test_replicas_count_together(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, rate_read=10)
    with redis_server(tmp_path) as server:
        async with open_shared(server.url) as one, open_shared(server.url) as other:
            first, second = (SharedLimits(each.limiter, settings) for each in (one, other))
            both = await asyncio.gather(granted(first, "ten_a", 30), granted(second, "ten_a", 30))
            assert 20 <= sum(both) <= 25  # two seconds' worth, and what came free meanwhile
            assert await granted(second, "ten_b", 15) == 15
            assert await granted(first, "ten_a", 50, mesh=True) == 50


@pytest.mark.parametrize("rate", [0, 1000])
async def test_no_limit_and_a_high_one_refuse_nobody(tmp_path: Path, rate: int) -> None:
    limits = SharedLimits(MemoryShared().limiter, settings_in(tmp_path, rate_read=rate))
    assert await granted(limits, "ten_a", 100) == 100
