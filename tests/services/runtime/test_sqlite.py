"""What takes long on SQLite does not hold up the process, nor is it without an end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import TextClause, text

from services.runtime.db import Database, sqlite
from services.runtime.db.driver import DirectConnection
from services.runtime.errors import ResourceExhausted, Unavailable
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


async def write(database: Database, number: int, *, fails: bool = False) -> None:
    async with database.transaction(()) as connection:
        await connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        if fails:
            raise LookupError


async def numbers(database: Database) -> list[int]:
    async with database.read(()) as connection:
        return list((await connection.execute(text("SELECT n FROM t ORDER BY n"))).scalars())


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[DirectConnection]:
    """The connection of each commit of a writer."""
    made: list[DirectConnection] = []
    commit = DirectConnection.commit

    def count(connection: DirectConnection) -> None:
        if connection.writes:
            made.append(connection)
        commit(connection)

    monkeypatch.setattr(DirectConnection, "commit", count)
    return made


async def test_those_who_wait_share_a_commit(
    database: Database, commits: list[DirectConnection]
) -> None:
    await asyncio.gather(*(write(database, number) for number in range(100)))
    assert await numbers(database) == list(range(100))
    assert len(commits) < 20
    commits.clear()
    for number in range(100, 105):
        await write(database, number)
    assert len(commits) == 5


async def test_one_that_fails_takes_no_other_along(database: Database) -> None:
    work = (write(database, number, fails=bool(number % 3)) for number in range(60))
    results = await asyncio.gather(*work, return_exceptions=True)
    assert await numbers(database) == list(range(0, 60, 3))
    assert [isinstance(each, LookupError) for each in results] == [bool(n % 3) for n in range(60)]


async def test_a_commit_that_fails_fails_all_of_its_group(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = DirectConnection.commit

    def full(connection: DirectConnection) -> None:
        if connection.writes:
            raise sqlite3.OperationalError("database or disk is full")
        commit(connection)

    with monkeypatch.context() as patched:
        patched.setattr(DirectConnection, "commit", full)
        work = (write(database, number, fails=number == 3) for number in range(10))
        results = await asyncio.gather(*work, return_exceptions=True)
        # Nor is the one that failed told of it as if the others had been kept.
        assert {type(each) for each in results} == {ResourceExhausted}, results
    await write(database, 11)
    assert await numbers(database) == [11]


async def test_a_group_whose_transaction_is_gone_is_told(database: Database) -> None:
    async def spoil() -> None:
        async with database.transaction(()) as connection:
            # As the database itself does where it has no room for a statement.
            await connection.execute(text("ROLLBACK"))

    async def first() -> None:
        async with database.transaction(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await asyncio.sleep(0.001)  # the others come

    work = [first(), write(database, 2), spoil(), write(database, 3)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert [type(each) for each in results] == [Unavailable] * 3 + [type(None)]
    assert await numbers(database) == [3]


@pytest.mark.parametrize("rounds", range(8))
async def test_nobody_waits_for_one_who_does_not_come(database: Database, rounds: int) -> None:
    """Whoever is next is cancelled at some moment of the change of turns."""
    go = asyncio.Event()

    async def first() -> None:
        async with database.transaction(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await go.wait()

    one = asyncio.create_task(first())
    await asyncio.sleep(0.01)
    two = asyncio.create_task(write(database, 2))
    await asyncio.sleep(0.01)
    go.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    two.cancel()
    async with asyncio.timeout(5):
        await one
        await asyncio.wait({two})
        await write(database, 3)
    assert await numbers(database) in ([1, 3], [1, 2, 3])


async def test_one_that_is_cancelled_in_the_middle_of_a_query_hears_of_that(
    database: Database,
) -> None:
    """Its connection is given up, and with it what others of its group wrote."""

    async def first() -> None:
        async with database.transaction(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await asyncio.sleep(0.001)  # the other comes

    async def long() -> None:
        async with database.transaction(()) as connection:
            await connection.execute(counting(10**12))

    one, other = asyncio.create_task(first()), asyncio.create_task(long())
    await asyncio.sleep(0.1)
    other.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await other
        with pytest.raises(Unavailable):
            await one
        await write(database, 2)
    assert await numbers(database) == [2]


async def test_where_there_is_no_room_that_is_said(database: Database) -> None:
    async def fill() -> None:
        async with database.transaction(()) as connection:
            await connection.execute(text("CREATE TABLE big (data BLOB)"))
            await connection.execute(text("PRAGMA max_page_count = 10"))
            try:
                await connection.execute(text("INSERT INTO big VALUES (zeroblob(1000000))"))
            finally:
                await connection.execute(text("PRAGMA max_page_count = 100000"))

    work = [write(database, 1), fill(), write(database, 3)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert isinstance(results[1], ResourceExhausted), results
    kept = [number for number, each in zip((1, 3), results[::2], strict=True) if each is None]
    assert await numbers(database) == kept
    await write(database, 4)
