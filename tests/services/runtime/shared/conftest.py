"""A real Redis, and what two processes would share, in either implementation."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.runtime import log
from services.runtime.shared import Shared, open_shared
from tests.redis_server import RedisServer, redis_server


@dataclass(frozen=True)
class Pair:
    """Two views of what is shared: those of two processes where there is a Redis, else of one."""

    one: Shared
    other: Shared
    kind: str


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    # The folders of tests have names too long for a socket.
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def common_redis() -> Iterator[RedisServer]:
    """For those that neither hurt it nor mind what others left there."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            alone = await stack.enter_async_context(open_shared("", alone=True))
            yield Pair(alone, alone, request.param)
        else:
            url = request.getfixturevalue("common_redis").url
            one, other = [await stack.enter_async_context(open_shared(url)) for _ in range(2)]
            yield Pair(one, other, request.param)


class Heard:
    """Keeps lines instead of writing them."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def note(self, line: dict[str, object]) -> None:
        """Keep one."""
        self.lines.append(line)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What is logged, whatever the level."""
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    heard = Heard()
    monkeypatch.setattr(log, "_lines", heard)
    yield heard.lines


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
