"""Responses of models on a real database, with a scripted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.interop.domain.values import (
    Asked,
    AskedVectors,
    Event,
    Finished,
    Named,
    Started,
    Text,
    Usage,
)
from services.interop.leases import Leases
from services.interop.ports import RemoteAgents
from services.interop.service.background import Background
from services.interop.service.keeping import Keeper
from services.interop.service.responses import Responses
from services.interop.service.shared import Reply
from services.interop.settings import InteropSettings
from services.runtime.clients import Clients
from services.runtime.context import Principal, acting_as
from services.runtime.credentials import MeshSigner
from services.runtime.db import Database
from services.runtime.migrations import migrate
from services.runtime.shared import MemoryShared
from services.runtime.tasks import Tasks
from tests.databases import KINDS, Databases

MIGRATIONS = Path(__file__).parents[3] / "services" / "interop" / "migrations"
ALICE = Principal("ten_a", "usr_a", "tok_a", frozenset({2}))
BOB = Principal("ten_b", "usr_b", "tok_b", frozenset({2}))
Json = dict[str, Any]
Script = Callable[[], AsyncGenerator[Event, None]]


async def hello() -> AsyncGenerator[Event, None]:
    """A short answer."""
    for event in (Text("Hello"), Text(" there"), Finished("stop", Usage(3, 2))):
        yield event


async def endless() -> AsyncGenerator[Event, None]:
    """One word after the other, until nobody wants more."""
    for number in range(100_000):
        yield Text(f"w{number} ")
        await asyncio.sleep(0.005)


class ScriptedModels:
    """Stands for llm: what it is asked is kept, and it answers from scripts."""

    def __init__(self) -> None:
        self.script: Script = hello
        self.queue: list[Script] = []
        self.asked: list[Asked] = []
        self.stopped = asyncio.Event()

    async def answer(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """An answer as it is written."""
        self.asked.append(asked)
        script = self.queue.pop(0) if self.queue else self.script
        try:
            yield Started("gen_1", "lab/tiny")
            async with aclosing(script()) as events:
                async for event in events:
                    yield event
        finally:
            self.stopped.set()

    async def listed(self) -> list[Named]:
        """None."""
        return []

    async def vectors(self, asked: AskedVectors) -> tuple[str, Sequence[Sequence[float]], Usage]:
        """None."""
        return asked.model, [], Usage()


@dataclass
class Desk:
    """A process's worth of responses, which can end without notice."""

    database: Database
    instance: str = "only"
    models: ScriptedModels = field(default_factory=ScriptedModels)
    settings: InteropSettings = field(default_factory=InteropSettings)
    shared: MemoryShared = field(default_factory=MemoryShared)
    tasks: Tasks = field(default_factory=Tasks)

    async def open(self) -> Desk:
        """Begin a process."""
        self.leases = Leases(self.database, self.instance)
        await self.leases.begin()
        notices = self.shared.notices
        self.keeper = Keeper(self.database, self.models, self.leases.owner)
        self.background = Background(
            self.database, self.models, self.leases, notices, self.tasks, self.settings
        )
        # Nobody is there: agents have tests of their own.
        clients = Clients({"agents": "unix:/nobody"}, MeshSigner(b"x" * 32))
        agents = RemoteAgents(clients.channel("agents"))
        self.responses = Responses(agents, self.keeper, self.background)
        self.tasks.keep_running("lease", self.background.keep_lease)
        return self

    async def create(self, who: Principal = ALICE, **body: Any) -> Json:
        """Make a response, and give the whole reply."""
        (reply,) = [reply async for reply in self._creating(who, body)]
        return told(reply)

    async def stream(self, who: Principal = ALICE, **body: Any) -> AsyncGenerator[Json, None]:
        """Make a response, and give its events."""
        async with aclosing(self._creating(who, {"stream": True, **body})) as replies:
            async for reply in replies:
                yield told(reply)

    async def _creating(self, who: Principal, body: Json) -> AsyncGenerator[Reply, None]:
        data = json.dumps({"input": "Hi.", "model": "lab/tiny", **body}).encode()
        with acting_as(who):
            async with aclosing(self.responses.create(who, data)) as replies:
                async for reply in replies:
                    yield reply

    async def get(self, response_id: str, who: Principal = ALICE) -> Json:
        """A response as it stands."""
        found = self.responses.get(who, response_id, stream=False, after=-1)
        (reply,) = [reply async for reply in found]
        return told(reply)

    async def events(self, response_id: str, after: int = -1, who: Principal = ALICE) -> list[Json]:
        """Its events behind one of them, to the last."""
        async with asyncio.timeout(20):
            found = self.responses.get(who, response_id, stream=True, after=after)
            return [told(reply) async for reply in found if reply.data]

    async def ended(self, response_id: str) -> Json:
        """A response when it is over."""
        return await until(lambda: self.get(response_id), lambda it: it["status"] != "in_progress")


def told(reply: Reply) -> Json:
    """What a reply says, be it whole or an event."""
    data = reply.data
    if b"data: " in data:
        data = data.partition(b"data: ")[2]
    found: Json = json.loads(data)
    return found


async def until(ask: Callable[[], Awaitable[Json]], good: Callable[[Json], bool]) -> Json:
    """Ask until the answer is a good one."""
    async with asyncio.timeout(20):
        while not good(found := await ask()):
            await asyncio.sleep(0.02)
    return found


def text_of(response: Json) -> str:
    """What a response says."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    """An empty database with interop's tables."""
    found = (await databases.make(request.param)).of("interop")
    await migrate(found, "interop", MIGRATIONS)
    return found


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    """A process with nothing asked yet."""
    found = await Desk(database).open()
    yield found
    await found.tasks.stop()
    await found.keeper.settle()


@pytest.fixture
def elsewhere(database: Database, databases: Databases) -> Database:
    """The same database as another process has it."""
    return databases.again().of("interop")
