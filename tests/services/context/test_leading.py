"""Which process keeps the index, on both databases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.context.leading import Leadership
from services.runtime.db import Database
from services.runtime.migrations import migrate
from services.runtime.tasks import Tasks
from tests.databases import KINDS, Databases

MIGRATIONS = Path(__file__).parents[3] / "services" / "context" / "migrations"


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    found = (await databases.make(request.param)).of("context")
    await migrate(found, "context", MIGRATIONS)
    return found


async def test_one_keeps_the_index_and_another_takes_over(database: Database) -> None:
    one, two = Leadership(database, "one"), Leadership(database, "two")
    await one.begin()
    await two.begin()
    assert await one.claim()
    assert not await two.claim()
    tasks = Tasks()
    tasks.keep_running("two", two.keep)
    try:
        # One ends without a word.
        async with asyncio.timeout(20):
            await two.wait()
        assert not await one.claim()
    finally:
        await tasks.stop()
    # It had the duty when it ended with a word.
    await two.end()
    await one.renew()
    assert await one.claim()
