"""Between a model that writes and a log that commits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agents.pump import TextPump
from services.runtime.errors import Unavailable


@given(st.lists(st.text(min_size=1, max_size=20), max_size=40), st.integers(0, 3))
def test_a_pump_loses_and_reorders_nothing(pieces: list[str], slowness: int) -> None:
    async def pumped() -> list[str]:
        committed: list[str] = []

        async def commit(text: str) -> None:
            for _ in range(slowness):
                await asyncio.sleep(0)
            committed.append(text)

        pump = TextPump(commit)
        for piece in pieces:
            await pump.put(piece)
        await pump.close()
        return committed

    committed = asyncio.run(pumped())
    assert "".join(committed) == "".join(pieces)
    assert all(committed)
    assert len(committed) <= len(pieces)


async def test_a_pump_waits_for_no_company_and_joins_what_waits() -> None:
    committed: list[str] = []
    gate = asyncio.Event()

    async def commit(text: str) -> None:
        committed.append(text)
        await gate.wait()

    pump = TextPump(commit)
    await pump.put("a")
    await asyncio.sleep(0.01)
    assert committed == ["a"]
    for piece in "bcd":
        await pump.put(piece)
    gate.set()
    await pump.close()
    assert committed == ["a", "bcd"]


async def test_a_log_that_refuses_is_heard_where_text_is_put() -> None:
    async def commit(text: str) -> None:
        raise Unavailable("full")

    pump = TextPump(commit)
    await pump.put("a")
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await pump.put("b")
    with pytest.raises(Unavailable):
        await pump.close()


async def test_a_model_cannot_run_far_ahead_of_the_log() -> None:
    gate = asyncio.Event()

    async def commit(text: str) -> None:
        await gate.wait()

    pump = TextPump(commit)
    await pump.put("x" * 70_000)
    await asyncio.sleep(0)
    await pump.put("x" * 70_000)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pump.put("y"), 0.05)
    gate.set()
    await pump.close()
