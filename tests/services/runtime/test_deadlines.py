"""What takes longer than it may is cut off, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime.interceptors.deadlines import Deadlines


async def work(deadlines: Deadlines, seconds: float, takes: float) -> bool:
    """Whether it was cut off."""
    deadline = deadlines.begin(asyncio.get_running_loop().time() + seconds)
    error: BaseException | None = None
    try:
        await asyncio.sleep(takes)
    except asyncio.CancelledError as cut:
        error = cut
    if deadline.passed(error):
        return True
    if error is not None:
        raise error
    return False


async def test_each_is_cut_at_its_own_time() -> None:
    deadlines = Deadlines()
    async with asyncio.timeout(10):
        cut = await asyncio.gather(
            *(work(deadlines, number / 50, 60 if number % 2 else 0) for number in range(30))
        )
    assert cut == [bool(number % 2) for number in range(30)]
    assert not any(deadlines._slots.values())


async def test_nobody_is_cut_early() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await work(Deadlines(), 0.2, 60)
    assert loop.time() - began >= 0.2


async def test_who_is_cancelled_by_others_stays_cancelled() -> None:
    task = asyncio.create_task(work(Deadlines(), 60, 60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_deadline_after_another_works() -> None:
    deadlines = Deadlines()
    for _ in range(2):
        assert await work(deadlines, 0.01, 60)
        await asyncio.sleep(0.2)  # nobody has one meanwhile: the timer rests


async def test_what_is_far_off_is_cut_at_its_time_and_holds_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.runtime.interceptors.deadlines._NEAR_SECONDS", 0.2)
    monkeypatch.setattr("services.runtime.interceptors.deadlines._SWEEP_SECONDS", 0.05)
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    began = loop.time()
    cut = asyncio.create_task(work(deadlines, 0.6, 60))
    whole = asyncio.create_task(work(deadlines, 60, 0.7))
    await asyncio.sleep(0.05)
    assert not deadlines._slots
    assert await cut
    assert 0.6 <= loop.time() - began < 1
    assert not await whole
    assert not deadlines._far
