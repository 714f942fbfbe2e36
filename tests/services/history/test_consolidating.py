"""Consolidations by several processes on one database, with models and memory that stand in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.history import proposal_store, store, summary_store, tables
from services.history.domain.sessions import Author, NewMessage
from services.history.domain.summary import Consolidation, Finding, State
from services.history.ports import Reader
from services.history.reading import Reading
from services.history.summaries import SummaryService
from services.history.workers import Consolidator, Proposer, Watcher
from services.runtime import clock
from services.runtime.db import EVERYONE, Database
from services.runtime.errors import NotFound, Unavailable
from services.runtime.leases import Lease
from services.runtime.migrations import migrate
from services.runtime.tasks import Tasks
from tests.databases import KINDS, Databases

MIGRATIONS = Path(__file__).parents[3] / "services" / "history" / "migrations"
TENANT, USER, SESSION = "ten_a", "usr_a", "ses_1"
Script = Callable[[dict[str, Any]], str]


def fitting(asked: dict[str, Any]) -> str:
    """An answer in the right form, with a line of nobody's, about all that was asked."""
    numbers = [message["number"] for message in asked["messages"]]
    return json.dumps(
        {
            "overview": [
                {"text": "They talked.", "messages": numbers},
                {"text": "Nobody said this.", "messages": []},
                {"text": "Nor this.", "messages": [9_999]},
            ],
            "decisions": [],
            "open_questions": [],
            "details": [],
            "answered": [],
            "facts": [{"text": "The user counts things.", "messages": numbers[-1:]}],
        }
    )


class StandInModels:
    """Stands for llm: answers from a script, and can keep one waiting."""

    def __init__(self, script: Script | Exception | None = fitting) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def reader(self, model: str) -> Reader | None:
        """The one there is, unless there is none."""
        if model == "lab/unknown":
            raise NotFound("There is no such model.", reason="UNKNOWN_MODEL")
        return None if self.script is None else Reader(model, 16_000)

    async def answer(
        self, reader: Reader, instructions: str, asked: str, schema: Mapping[str, Any]
    ) -> tuple[str, str]:
        """What the script says."""
        self.asked.append(json.loads(asked))
        await self.go.wait()
        if isinstance(self.script, Exception):
            raise self.script
        assert self.script is not None
        return "lab/writer", self.script(self.asked[-1])


class StandInMemory:
    """Stands for memory: keeps what was proposed, by its key, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.calls = 0
        self.kept: dict[str, Sequence[Finding]] = {}

    async def propose(self, user_id: str, findings: Sequence[Finding], key: str) -> int:
        """Keep them."""
        self.calls += 1
        if self.away:
            raise Unavailable("Not now.")
        self.kept[key] = findings
        return len(findings)


class Desk:
    """A process's worth of consolidations, which can end without a word."""

    def __init__(self, database: Database, models: StandInModels) -> None:
        self.database, self.models, self.tasks = database, models, Tasks()
        reading = Reading(models)
        self.consolidator = Consolidator(
            database, Lease(database, tables.owners, ""), reading, self.tasks
        )
        self.service = SummaryService(database, reading, self.consolidator.wake)
        self.tasks.keep_running("consolidator", self.consolidator.keep_working)

    async def kill(self) -> None:
        """End as by kill -9: nothing is given up, nothing is said."""
        await self.tasks.stop()

    async def append(self, count: int, first: int = 0, size: int = 0) -> None:
        """Add messages of the user's."""
        async with self.database.transaction((TENANT,)) as connection:
            for at in range(first, first + count):
                text = f"Item {at} costs {at}00 euros. My name is Ada{at}. {'x ' * size}"
                new = NewMessage(
                    TENANT, USER, f"msg_{at}", SESSION, Author.USER, text, "", partial=False,
                    time=clock.now(),
                )  # fmt: skip
                await store.append(connection, [new])

    async def settled(self) -> Consolidation:
        """The consolidation, when it is not under way."""
        async with asyncio.timeout(20):
            while True:
                found = await self.service.consolidation(TENANT, SESSION)
                if found.state is not State.RUNNING:
                    return found
                await asyncio.sleep(0.02)


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    """An empty database with history's tables."""
    found = (await databases.make(request.param)).of("history")
    await migrate(found, "history", MIGRATIONS)
    return found


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    """A process with nothing to do yet."""
    found = Desk(database, StandInModels())
    yield found
    await found.tasks.stop()


async def proposals(database: Database) -> list[proposal_store.Proposal]:
    async with database.read(EVERYONE) as connection:
        return await proposal_store.due(connection, 2**60, 100)


async def test_a_models_lines_name_their_messages_and_what_it_left_out_is_quoted(
    desk: Desk,
) -> None:
    await desk.append(3)
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    found = await desk.settled()
    assert found.summary.model == "lab/writer"
    assert [line.text for line in found.summary.overview] == ["They talked."]
    assert found.summary.overview[0].message_ids == ("msg_0", "msg_1", "msg_2")
    assert "Item 2 costs 200 euros." in [line.text for line in found.summary.details]
    (proposal,) = await proposals(desk.database)
    assert proposal.findings == [Finding("The user counts things.", "msg_2")]


@pytest.mark.parametrize(
    "script",
    [
        Unavailable("It broke it.", reason="MODEL_BROKE_FORMAT"),
        Unavailable("Away.", reason="MODEL_UNAVAILABLE"),
        TimeoutError(),
        lambda _: "no JSON at all",
        lambda _: "[]",
        lambda _: '{"overview": 7}',
        None,
    ],
)
async def test_where_the_model_fails_it_is_done_without(
    desk: Desk, script: Script | Exception | None
) -> None:
    desk.models.script = script
    await desk.append(2)
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    found = await desk.settled()
    assert (found.state, found.summary.model) == (State.DONE, "extractive")


async def test_a_model_that_is_not_there_is_said_to_be_so(desk: Desk) -> None:
    await desk.append(2)
    await desk.service.consolidate(TENANT, SESSION, "lab/unknown", 0)
    found = await desk.settled()
    assert (found.state, found.failure) == (State.FAILED, "There is no such model.")
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    assert (await desk.settled()).state is State.DONE


async def test_what_a_killed_process_had_is_taken_over_where_it_was(
    desk: Desk, databases: Databases
) -> None:
    # Two steps by their size: the first is committed, in the second the process ends.
    await desk.append(4, size=1_500)
    desk.models.go.clear()
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    async with asyncio.timeout(20):
        while not desk.models.asked:
            await asyncio.sleep(0.02)
        desk.models.go.set()
        await asyncio.sleep(0)
        desk.models.go.clear()
        while len(desk.models.asked) < 2:
            await asyncio.sleep(0.02)
    between = await desk.service.consolidation(TENANT, SESSION)
    await desk.kill()
    other = Desk(databases.again().of("history"), StandInModels())
    found = await other.settled()
    assert (found.state, found.through_place) == (State.DONE, 4)
    first = other.models.asked[0]["messages"][0]["text"]
    assert between.state is State.RUNNING
    assert first.startswith(f"Item {between.through_place} ")
    assert between.through_place
    await other.kill()


async def test_one_of_two_processes_does_it(desk: Desk, databases: Databases) -> None:
    other = Desk(databases.again().of("history"), StandInModels())
    await desk.append(8, size=1_500)
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    found = await desk.settled()
    assert found.through_place == 8
    read = [
        message["text"].split()[1]
        for models in (desk.models, other.models)
        for asked in models.asked
        for message in asked["messages"]
    ]
    assert sorted(read) == [str(at) for at in range(8)]
    await other.kill()


async def test_who_lost_it_changes_nothing_any_more(desk: Desk) -> None:
    await desk.append(2)
    desk.models.go.clear()
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    async with asyncio.timeout(20):
        while not desk.models.asked:
            await asyncio.sleep(0.02)
    async with desk.database.transaction(EVERYONE) as connection:
        query = tables.consolidations.update()
        await connection.execute(query.values(owner="another"))
        await connection.execute(
            tables.owners.insert().values(owner="another", instance="", beat=0)
        )
    desk.models.go.set()
    await asyncio.sleep(0.1)
    found = await desk.service.consolidation(TENANT, SESSION)
    assert (found.state, found.through_place) == (State.RUNNING, 0)
    # That one never renews, and is found to have ended.
    assert (await desk.settled()).through_place == 2


async def test_what_never_gets_on_fails_at_last(desk: Desk) -> None:
    await desk.kill()
    await desk.append(2)
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    async with desk.database.transaction(EVERYONE) as connection:
        await connection.execute(tables.consolidations.update().values(attempts=5))
    again = Desk(desk.database, StandInModels())
    found = await again.settled()
    assert found.state is State.FAILED
    assert found.failure
    await again.kill()


async def test_long_sessions_are_consolidated_without_being_asked(desk: Desk) -> None:
    watcher = Watcher(desk.database, desk.service, 1_000)
    await desk.append(10, size=20)
    await watcher.look()
    assert (await desk.service.consolidation(TENANT, SESSION)).state is State.NONE
    await desk.append(20, first=10, size=200)
    await watcher.look()
    found = await desk.settled()
    assert found.through_place == 24


async def test_only_so_many_versions_are_kept(desk: Desk) -> None:
    desk.models.script = None
    for at in range(summary_store.VERSIONS + 3):
        await desk.append(1, first=at)
        await desk.service.consolidate(TENANT, SESSION, "", 0)
        await desk.settled()
    async with desk.database.read((TENANT,)) as connection:
        query = tables.summaries.select()
        places = [row.through_place for row in await connection.execute(query)]
    assert sorted(places) == [*range(4, summary_store.VERSIONS + 4)]
    assert await desk.service.before(TENANT, SESSION, "msg_3") is None


async def test_facts_wait_for_memory_and_are_counted_once(desk: Desk) -> None:
    memory = StandInMemory()
    memory.away = True
    proposer = Proposer(desk.database, memory)
    await desk.append(2)
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    assert (await desk.settled()).state is State.DONE
    await proposer.propose_due()
    (waiting,) = await proposals(desk.database)
    assert (waiting.attempts, memory.calls) == (1, 1)
    # Not due yet.
    await proposer.propose_due()
    assert memory.calls == 1
    memory.away = False
    await _make_due(desk.database)
    await proposer.propose_due()
    assert [*memory.kept] == [waiting.key]
    assert await proposals(desk.database) == []
    assert (await desk.settled()).proposed_count == 1


async def test_facts_are_given_up_at_last(desk: Desk) -> None:
    memory = StandInMemory()
    memory.away = True
    proposer = Proposer(desk.database, memory)
    await desk.append(1)
    await desk.service.consolidate(TENANT, SESSION, "", 0)
    await desk.settled()
    for _ in range(20):
        await _make_due(desk.database)
        await proposer.propose_due()
    assert memory.calls == 8
    assert await proposals(desk.database) == []
    assert (await desk.settled()).proposed_count == 0


async def _make_due(database: Database) -> None:
    async with database.transaction(EVERYONE) as connection:
        await connection.execute(tables.proposals.update().values(due_time=0))
