"""Transactions, group commit and migrations, on a real database file."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.runtime.db import Connection, Database, DatabaseDamaged, check_file
from services.runtime.errors import InvalidRequest, NotFound, PlexusError, Unavailable
from services.runtime.groups import GroupWriter
from services.runtime.migrations import SchemaTooNew, migrate, revisions
from services.runtime.status import as_plexus_error
from tests.databases import KINDS, Databases

HISTORY = Path(__file__).parents[3] / "services" / "history" / "migrations"


async def prepared(database: Database) -> Database:
    async with database.migrating("test") as connection:
        assert connection is not None
        await connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    return database.of("test")


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    return await prepared(await databases.make(request.param))


@pytest.fixture(params=KINDS)
async def empty(request: pytest.FixtureRequest, databases: Databases) -> Database:
    return await databases.make(request.param)


async def numbers(database: Database) -> list[int]:
    async with database.read(()) as connection:
        return [row.n for row in await connection.execute(text("SELECT n FROM t ORDER BY n"))]


async def test_a_unit_of_work_is_kept_whole_or_not_at_all(database: Database) -> None:
    async with database.transaction(()) as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))
    with pytest.raises(RuntimeError):
        async with database.transaction(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (2)"))
            raise RuntimeError
    assert await numbers(database) == [1]


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.read(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))


async def test_commits_are_on_the_disk(databases: Databases) -> None:
    database = await databases.make("sqlite")
    async with database.transaction(()) as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 2  # FULL


async def test_writers_queue_rather_than_fail(database: Database) -> None:
    async def write(n: int) -> None:
        async with database.transaction(()) as connection:
            await connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})

    await asyncio.gather(*(write(n) for n in range(100)))
    assert await numbers(database) == list(range(100))


async def test_a_drivers_text_reaches_nobody(database: Database) -> None:
    with pytest.raises((PlexusError, DBAPIError)) as caught:
        async with database.read(()) as connection:
            await connection.execute(text("SELECT * FROM secret_table"))
    known = as_plexus_error(caught.value)
    assert "secret_table" not in known.message


class Groups:
    """A store that counts the transactions it is given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def store(
        self, connection: Connection, batch: Sequence[int]
    ) -> Sequence[str | PlexusError]:
        self.sizes.append(len(batch))
        results: list[str | PlexusError] = []
        for n in batch:
            if n == 13:
                results.append(NotFound.of("thirteen"))
                continue
            await connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})
            results.append(f"kept {n}")
        return results


async def test_a_group_is_one_transaction_and_each_gets_its_own_result(database: Database) -> None:
    groups = Groups()
    writer = GroupWriter(database, groups.store, lambda n: "ten_a")
    running = asyncio.create_task(writer.run())
    waiting = [asyncio.create_task(writer.submit(n)) for n in range(20)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[7] == "kept 7"
    assert isinstance(results[13], NotFound)
    assert sum(groups.sizes) == 20
    assert len(groups.sizes) < 5
    assert await numbers(database) == [n for n in range(20) if n != 13]
    running.cancel()


async def test_one_bad_item_does_not_take_the_others_with_it(database: Database) -> None:
    writer = GroupWriter(database, Groups().store, lambda n: "ten_a")
    waiting = [asyncio.create_task(writer.submit(n)) for n in (1, 2, 2, 3)]
    await asyncio.sleep(0)
    running = asyncio.create_task(writer.run())
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(each, Exception) for each in results] == [False, False, True, False]
    assert await numbers(database) == [1, 2, 3]
    running.cancel()


async def test_what_is_no_text_is_its_senders_mistake(empty: Database) -> None:
    async with empty.migrating("test") as connection:
        assert connection is not None
        await connection.execute(text("CREATE TABLE w (word TEXT PRIMARY KEY)"))
    database = empty.of("test")

    async def store(connection: Connection, items: Sequence[str]) -> Sequence[str]:
        await connection.execute(
            text("INSERT INTO w VALUES (:word)"), [{"word": each} for each in items]
        )
        return items

    writer = GroupWriter(database, store, lambda _: "ten_a")
    running = asyncio.create_task(writer.run())
    kept = await asyncio.gather(*map(writer.submit, ("a", "b\0", "c")), return_exceptions=True)
    running.cancel()
    # SQLite takes it for text.
    refused = database.dialect == "postgresql"
    assert isinstance(kept[1], InvalidRequest) if refused else kept[1] == "b\0"
    assert [kept[0], kept[2]] == ["a", "c"]


async def test_whoever_waits_for_a_writer_that_stops_is_told(database: Database) -> None:
    writer = GroupWriter(database, Groups().store, lambda n: "ten_a")
    waiting = asyncio.create_task(writer.submit(1))
    await asyncio.sleep(0)
    running = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await waiting
    assert waiting.done()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_migrations_are_applied_once(empty: Database) -> None:
    database = empty.of("history")
    await migrate(database, "history", HISTORY)
    await migrate(database, "history", HISTORY)
    async with database.read(()) as connection:
        found = await connection.execute(text("SELECT version_num FROM history_alembic_version"))
        assert found.scalar() == revisions(HISTORY)[-1]
        await connection.execute(text("SELECT * FROM history_messages"))


async def test_a_failed_migration_leaves_nothing(empty: Database, tmp_path: Path) -> None:
    (tmp_path / "0001_bad.py").write_text(
        "from alembic import op\nrevision = '0001'\ndown_revision = None\n"
        "def upgrade():\n    op.execute('CREATE TABLE half (n INTEGER)')\n"
        "    op.execute('nonsense')\n"
    )
    with pytest.raises((PlexusError, DBAPIError)):
        await migrate(empty, "bad", tmp_path)
    with pytest.raises((PlexusError, DBAPIError)):
        async with empty.of("bad").read(()) as connection:
            await connection.execute(text("SELECT * FROM half"))


def a_step(folder: Path, number: int, *, compatible: bool) -> None:
    folder.mkdir(exist_ok=True)
    before = f"{number - 1:04}" if number > 1 else None
    (folder / f"{number:04}_step.py").write_text(
        f"from alembic import op\nrevision = '{number:04}'\ndown_revision = {before!r}\n"
        f"compatible = {compatible}\n"
        f"def upgrade():\n    op.execute('CREATE TABLE t{number} (n INTEGER)')\n"
    )


async def test_a_program_serves_from_later_tables_as_long_as_it_can(
    empty: Database, tmp_path: Path
) -> None:
    """The way there and back by one version; 0003 leaves nobody behind, 0004 all before it."""
    database = empty.of("steps")
    programs = [tmp_path / f"program{number}" for number in range(1, 5)]
    for number, folder in enumerate(programs, start=1):
        for step in range(1, number + 1):
            a_step(folder, step, compatible=step == 3)
    for folder in programs[:3]:
        await migrate(database, "steps", folder)
    with pytest.raises(SchemaTooNew, match="later version"):
        await migrate(database, "steps", programs[0])
    await migrate(database, "steps", programs[1])
    async with database.read(()) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM t3"))).scalar() == 0
    await migrate(database, "steps", programs[3])
    for folder in programs[:3]:
        with pytest.raises(SchemaTooNew, match="later version"):
            await migrate(database, "steps", folder)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(path, id=f"{path.parts[-3]}-{path.stem}")
        for path in sorted(HISTORY.parents[1].glob("*/migrations/[0-9]*.py"))
        if not path.name.startswith("0001")
    ],
)
def test_each_step_says_whether_older_programs_go_on(step: Path) -> None:
    assert "\ncompatible = " in step.read_text()


def test_a_damaged_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "plexus.db"
    check_file(path)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (n)")
    connection.commit()
    connection.close()
    check_file(path)
    path.write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(DatabaseDamaged, match="backup"):
        check_file(path)


def columns(connection: SyncConnection, table: str) -> list[Any]:
    return list(inspect(connection).get_columns(table))


@pytest.mark.parametrize("module", ["identity", "history", "agents"])
async def test_tables_are_what_the_migrations_make(empty: Database, module: str) -> None:
    """The mappings in tables.py and the steps in migrations/ cannot drift apart."""
    database = empty.of(module)
    folder = Path(__file__).parents[3] / "services" / module / "migrations"
    await migrate(database, module, folder)
    metadata = importlib.import_module(f"services.{module}.tables").metadata
    async with database.read(()) as connection:
        for name, table in metadata.tables.items():
            made = await connection.run_sync(columns, name)
            assert {column["name"]: column["nullable"] for column in made} == {
                column.name: bool(column.nullable) for column in table.columns
            }


async def test_a_store_that_is_away_is_told_to_all_at_once(database: Database) -> None:
    calls = 0

    async def refuse(connection: Connection, batch: Sequence[int]) -> Sequence[str]:
        nonlocal calls
        calls += 1
        raise Unavailable("away")

    writer = GroupWriter(database, refuse, lambda n: "ten_a")
    waiting = [asyncio.create_task(writer.submit(n)) for n in range(50)]
    await asyncio.sleep(0)
    running = asyncio.create_task(writer.run())
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in results} == {Unavailable}
    assert calls == 1
    running.cancel()


async def test_what_is_stored_is_not_in_the_errors_about_it(database: Database) -> None:
    insert = text("INSERT INTO t VALUES (:n)")
    with pytest.raises(IntegrityError) as caught:
        async with database.transaction(()) as connection:
            await connection.execute(insert, {"n": 424242})
            await connection.execute(insert, {"n": 424242})
    assert "424242" not in str(caught.value)
