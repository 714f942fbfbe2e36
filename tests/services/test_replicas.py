"""Several processes on one PostgreSQL, and a server that stops answering in the middle."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from services.agents import store as agents_store
from services.agents.domain import NewRun, Run, RunState
from services.history import store as history_store
from services.history.domain.sessions import Author, NewMessage
from services.history.service import HistoryService
from services.packaged import ROLE, PackagedPostgres
from services.runtime import clock
from services.runtime.db import Connection, Database
from services.runtime.db import postgres as driver
from services.runtime.db.postgres import PostgresDatabase
from services.runtime.errors import Unavailable
from services.runtime.groups import GroupWriter
from services.runtime.ids import new_id
from services.runtime.migrations import migrate
from tests.databases import Databases
from tests.services.agents.conftest import Desk

SERVICES = Path(__file__).parents[2] / "services"
_SOCKET = ".s.PGSQL.5432"


class Hole:
    """A way to a server on which connections fall silent; new ones work."""

    def __init__(self, real: Path) -> None:
        self._real = real
        self.folder = Path(tempfile.mkdtemp(prefix="plexus-"))
        self._silent: list[dict[str, bool]] = []
        self._passing: list[asyncio.Task[None]] = []
        # The next connection that sends this hears nothing from then on.
        self.trap = b""

    async def open(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._accept, self.folder / _SOCKET)

    async def close(self) -> None:
        for each in self._passing:
            each.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def cut(self) -> None:
        for each in self._silent:
            each["silent"] = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._real / _SOCKET))
        state = {"silent": False}
        self._silent.append(state)
        for each in (
            self._pass(reader, far_writer, state, asks=True),
            self._pass(far_reader, writer, state, asks=False),
        ):
            self._passing.append(asyncio.create_task(each))

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        state: dict[str, bool],
        *,
        asks: bool,
    ) -> None:
        try:
            while data := await source.read(65536):
                if asks and self.trap and self.trap in data:
                    self.trap = b""
                    sink.write(data)  # it arrives; its answer does not
                    state["silent"] = True
                if not state["silent"]:
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass  # either end may go at any time
        finally:
            sink.close()


@pytest.fixture
async def silenced(
    databases: Databases, postgres: PackagedPostgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Hole, Database]]:
    """The tables of agents through a hole, with less patience than in earnest."""
    monkeypatch.setitem(driver._SERVING, "command_timeout", 3.0)
    direct = (await databases.make("postgresql")).of("agents")
    await migrate(direct, "agents", SERVICES / "agents" / "migrations")
    hole = Hole(postgres.folder)
    server = await hole.open()
    url = f"postgresql://{ROLE}@/{databases.name}?host={hole.folder}"
    database = PostgresDatabase(url, connections=4)
    yield hole, database.of("agents")
    await database.close()
    server.close()
    await hole.close()


async def test_silent_connections_leave_the_pool(silenced: tuple[Hole, Database]) -> None:
    hole, database = silenced
    await asyncio.gather(*(database.check() for _ in range(4)))
    hole.cut()
    began = time.monotonic()
    for _ in range(3):
        async with database.read(()) as connection:
            await connection.execute(text("SELECT 1"))
    assert time.monotonic() - began < 20


async def test_a_run_whose_commit_was_never_answered_is_ended(
    silenced: tuple[Hole, Database],
) -> None:
    hole, database = silenced
    desk = Desk(database)
    await desk.open()
    await desk.events(await desk.ask())
    store: Any = desk.service._writer._store

    async def commit_into_the_hole(connection: Connection, batch: Sequence[Any]) -> Any:
        stored = await store(connection, batch)
        hole.trap = b"COMMIT"
        return stored

    desk.service._writer._store = commit_into_the_hole
    with pytest.raises(Unavailable):
        await desk.ask("lost", key="k")
    desk.service._writer._store = store
    # It was kept; asked again, it is the same run, which somebody ends.
    run = await desk.ask("lost", key="k")
    assert (await desk.events(run))[-1].is_last
    await desk.tasks.stop()


async def test_one_key_over_two_replicas_is_one_run(databases: Databases) -> None:
    database = (await databases.make("postgresql")).of("agents")
    await migrate(database, "agents", SERVICES / "agents" / "migrations")
    replicas = [
        GroupWriter(each, agents_store.insert_runs, lambda new: new.run.tenant_id)
        for each in (database, databases.again().of("agents"))
    ]
    working = [asyncio.create_task(each.run()) for each in replicas]
    keys = [str(number) for number in range(100)]
    asked = [(replica, key) for replica in replicas for key in random.Random(1).sample(keys, 100)]
    answers = await asyncio.gather(*(replica.submit(_run(key)) for replica, key in asked))
    by_key: dict[str, set[str]] = {}
    for (_, key), answer in zip(asked, answers, strict=True):
        by_key.setdefault(key, set()).add(answer.run_id)
    assert {len(each) for each in by_key.values()} == {1}
    for each in working:
        each.cancel()


def _run(key: str) -> NewRun:
    run = Run(
        run_id=new_id("run"),
        tenant_id="ten_a",
        user_id="usr_a",
        agent_id="agt_a",
        session_id=f"ses_{key}",
        input="hi",
        state=RunState.RUNNING,
        output="",
        failure=None,
        usage=None,
        last_sequence=0,
        create_time=clock.now(),
        end_time=None,
    )
    return NewRun(run, key, "the same", "owner")


@pytest.mark.parametrize("sessions", [1, 40])
async def test_replicas_append_to_the_same_sessions(databases: Databases, sessions: int) -> None:
    database = (await databases.make("postgresql")).of("history")
    await migrate(database, "history", SERVICES / "history" / "migrations")
    views = [database, *(databases.again().of("history") for _ in range(2))]
    writers = [GroupWriter(each, history_store.append, lambda new: new.tenant_id) for each in views]
    working = [asyncio.create_task(each.run()) for each in writers]
    services = [HistoryService(each, writer) for each, writer in zip(views, writers, strict=True)]
    chance = random.Random(sessions)

    async def many(service: HistoryService) -> None:
        for _ in range(20):
            await service.append(_message(f"ses_{chance.randrange(sessions)}"))

    await asyncio.gather(*(many(service) for service in services for _ in range(4)))
    async with database.read(("ten_a",)) as connection:
        query = text(
            "SELECT count(*) AS n, count(DISTINCT (session_id, place)) FROM history_messages"
        )
        assert tuple((await connection.execute(query)).one()) == (240, 240)
    for each in working:
        each.cancel()


def _message(session_id: str) -> NewMessage:
    return NewMessage(
        message_id=new_id("msg"),
        session_id=session_id,
        tenant_id="ten_a",
        user_id="usr_a",
        author=Author(1),
        text="x",
        run_id="",
        partial=False,
        time=clock.now(),
    )


async def test_frozen_together_nobody_is_taken_for_dead(databases: Databases) -> None:
    database = (await databases.make("postgresql")).of("agents")
    await migrate(database, "agents", SERVICES / "agents" / "migrations")
    one, other = (Desk(each, instance="") for each in (database, databases.again().of("agents")))
    for desk in (one, other):
        await desk.open()
    one.models.steps = ("Some", 30.0)
    run = await one.ask()
    await asyncio.sleep(0.3)
    for _ in range(2):
        # What a paused machine is to the clocks of both.
        time.sleep(2.5)  # noqa: ASYNC251
        await asyncio.sleep(0.7)
    assert (await one.service.run("ten_a", run.run_id)).state is RunState.RUNNING
    # The first ends without a word: now the other takes over.
    await one.tasks.stop()
    assert (await other.events(run))[-1].is_last
    await other.tasks.stop()
