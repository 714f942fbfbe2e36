"""What takes long on SQLite does not hold up the process, nor is it without an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import TextClause, text

from services.runtime.db import Database, sqlite
from services.runtime.errors import Unavailable
from tests.databases import Databases


def counting(most: int) -> TextClause:
    """A query that takes about 50 ms for a million."""
    return text(
        "SELECT count(*) AS n FROM (WITH RECURSIVE c(x) AS "
        f"(SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {most}) SELECT x FROM c)"
    )


@pytest.fixture
async def database(databases: Databases) -> Database:
    database = await databases.make("sqlite")
    async with database.transaction(()) as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    return database


@asynccontextmanager
async def others_run(times: int) -> AsyncIterator[None]:
    """Fails unless others had so many turns meanwhile."""
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    other = asyncio.create_task(work())
    yield
    other.cancel()
    assert turns >= times


async def test_others_run_during_a_long_query(database: Database) -> None:
    async with others_run(20), database.read(()) as connection:
        assert (await connection.execute(counting(3_000_000))).scalar() == 3_000_000
        # The connection is as good as before.
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


async def test_a_long_query_keeps_what_its_transaction_wrote(database: Database) -> None:
    async with others_run(20), database.transaction(()) as connection:
        await connection.execute(text("INSERT INTO t VALUES (7)"))
        assert (await connection.execute(counting(3_000_000))).scalar() == 3_000_000
    async with database.read(()) as connection:
        assert (await connection.execute(text("SELECT n FROM t"))).scalars().all() == [7]


async def test_others_run_while_many_rows_are_written(database: Database) -> None:
    rows = [{"n": n} for n in range(200_000)]
    async with others_run(5), database.transaction(()) as connection:
        await connection.execute(text("INSERT INTO t VALUES (:n)"), rows)
    async with database.read(()) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar() == len(rows)


async def test_a_query_that_is_cancelled_ends(database: Database) -> None:
    async def ask() -> None:
        async with database.transaction(()) as connection:
            await connection.execute(counting(10**12))

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.1)
    asking.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await asking
        # Its connection, which is the only one that writes, is free.
        async with database.transaction(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))


async def test_a_query_that_does_not_end_is_broken_off(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_WAIT_SECONDS", 0.2)
    database = await databases.make("sqlite")
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            async with database.read(()) as connection:
                await connection.execute(counting(10**12))
