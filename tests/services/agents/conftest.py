"""Agents on a real database, with scripted neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.agents import store
from services.agents.domain import Event, Run
from services.agents.leases import Leases
from services.agents.runlog import RunLog
from services.agents.runner import Runner
from services.agents.service import AgentsService, Asked
from services.agents.settings import AgentsSettings
from services.runtime.context import Principal, acting_as
from services.runtime.db import Database
from services.runtime.groups import GroupWriter
from services.runtime.migrations import migrate
from services.runtime.shared import MemoryShared
from services.runtime.tasks import Tasks
from tests.databases import KINDS, Databases
from tests.services.agents.scripted import ScriptedHistory, ScriptedKnowledge, ScriptedModels

MIGRATIONS = Path(__file__).parents[3] / "services" / "agents" / "migrations"
ALICE = Principal("ten_a", "usr_a", "tok_a", frozenset({2}))
BOB = Principal("ten_b", "usr_b", "tok_b", frozenset({2}))


@dataclass
class Desk:
    """A process's worth of agents, which can end without notice and start again."""

    database: Database
    history: ScriptedHistory = field(default_factory=ScriptedHistory)
    knowledge: ScriptedKnowledge = field(default_factory=ScriptedKnowledge)
    models: ScriptedModels = field(default_factory=lambda: ScriptedModels("Hello", " there"))
    settings: AgentsSettings = field(default_factory=AgentsSettings)
    tasks: Tasks = field(default_factory=Tasks)
    instance: str = "only"

    async def open(self) -> AgentsService:
        """Begin a process."""
        self.tasks = Tasks()
        run_writer = GroupWriter(self.database, store.insert_runs, lambda new: new.run.tenant_id)
        event_writer = GroupWriter(
            self.database, store.insert_events, lambda new: new.run.tenant_id
        )
        self.tasks.keep_running("runs", run_writer.run)
        self.tasks.keep_running("events", event_writer.run)
        notices = MemoryShared().notices
        self.leases = Leases(self.database, self.instance)
        self.runs = RunLog(self.database, event_writer, notices, self.leases.owner)
        runner = Runner(self.runs, self.history, self.knowledge, self.models)
        self.service = AgentsService(
            self.settings,
            self.database,
            run_writer,
            self.runs,
            runner,
            self.history,
            self.tasks,
            self.leases,
            notices,
        )
        await self.leases.begin()
        self.tasks.keep_running("lease", self.service.keep_lease)
        return self.service

    async def ask(self, text: str = "hi", key: str = "", session: str = "") -> Run:
        """Start a run as Alice."""
        with acting_as(ALICE):
            return await self.service.start(ALICE, Asked(text, "", session, key))

    async def events(self, run: Run, after: int = 0) -> list[Event]:
        """Every event of a run, until its last."""
        async with asyncio.timeout(20):
            return [e async for e in self.service.watch(run.tenant_id, run.run_id, after)]


@pytest.fixture(params=KINDS)
async def desk(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Desk]:
    """Agents with nothing asked yet."""
    database = (await databases.make(request.param)).of("agents")
    await migrate(database, "agents", MIGRATIONS)
    found = Desk(database)
    await found.open()
    yield found
    await found.tasks.stop()
