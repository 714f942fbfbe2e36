"""Work that goes on for ever, until it is to end."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime.tasks import Tasks


async def test_a_failure_does_not_end_it() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise LookupError

    tasks = Tasks()
    tasks.keep_running("work", work, longest=0.01)
    async with asyncio.timeout(5):
        while tries < 3:
            await asyncio.sleep(0.01)
        await tasks.stop()


@pytest.mark.parametrize("rounds", range(4))
async def test_a_failure_in_the_moment_of_the_end_does_not_keep_it(rounds: int) -> None:
    fails = asyncio.Event()

    async def member() -> None:
        await fails.wait()
        raise LookupError

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(member())
            group.create_task(asyncio.sleep(60))

    tasks = Tasks()
    tasks.keep_running("work", work)
    await asyncio.sleep(0.01)
    fails.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.stop()
