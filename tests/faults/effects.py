"""One idempotency key in many hands at once: how often it had an effect, and what each was told."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.history.v1 import history_service_pb2 as history

from services.packaged import PackagedPostgres
from services.runtime.errors import PlexusError
from services.runtime.status import remote_errors
from tests.e2e.callers import Grpc
from tests.e2e.mesh import Mesh
from tests.faults.suite import Suite
from tests.services.llm.scripted_openai import ScriptedOpenAi

_PROCESS = "/plexus.agents.v1.AgentsService/Process"
# The gateway takes so many streams on one connection; more connections are more races, too.
_CHANNELS = 4
_PAUSE_SECONDS = 0.5
REFUSED = "IDEMPOTENCY_KEY_REUSED"


@dataclass
class Key:
    """What is asked under one key: callers, and those among them who ask for something else."""

    name: str
    callers: int
    rivals: int
    told: list[tuple[str, str, tuple[bytes, ...]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What most ask."""
        return f"What is {self.name}?"

    @property
    def other(self) -> str:
        """What its rivals ask."""
        return f"And what is not {self.name}?"

    @property
    def won(self) -> str:
        """The text that its run answers; empty where there is none."""
        answered = {text for text, reason, _ in self.told if not reason}
        return answered.pop() if len(answered) == 1 else ""

    @property
    def answers(self) -> set[tuple[bytes, ...]]:
        """The different answers that callers got."""
        return {messages for _, reason, messages in self.told if not reason}


class Crowd:
    """Many callers of one account, over some connections."""

    def __init__(self, mesh: Mesh, token: str) -> None:
        target = mesh.url.removeprefix("http://")
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(target, options) for _ in range(_CHANNELS)]
        self._metadata = [("authorization", f"Bearer {token}")]

    async def ask(self, number: int, key: str, text: str) -> tuple[str, str, tuple[bytes, ...]]:
        """One call: its text, the reason of its refusal, and every message as it came.

        Where the mesh has too much to do it says so, having done nothing: then it is asked again.
        """
        while True:
            told = await self._ask(number, key, text)
            if told[1] != "LIMIT_REACHED":
                return told
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, number: int, key: str, text: str) -> tuple[str, str, tuple[bytes, ...]]:
        multi: Any = self._channels[number % _CHANNELS].unary_stream(_PROCESS)
        request = agents.ProcessRequest(input=text, idempotency_key=key)
        messages = []
        try:
            with remote_errors():
                data = request.SerializeToString()
                async for each in multi(data, metadata=self._metadata, timeout=60):
                    messages.append(each)
        except PlexusError as error:
            return text, error.reason, tuple(messages)
        return text, "", tuple(messages)

    async def rush(self, key: Key, order: Sequence[bool]) -> None:
        """All callers of a key at once; `order` says which of them are rivals."""
        calls = (
            self.ask(number, key.name, key.other if rival else key.text)
            for number, rival in enumerate(order)
        )
        key.told += await asyncio.gather(*calls)

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.gather(*(each.close() for each in self._channels))


@asynccontextmanager
async def crowd(mesh: Mesh, token: str) -> AsyncIterator[Crowd]:
    """A crowd while the block runs."""
    found = Crowd(mesh, token)
    try:
        yield found
    finally:
        await found.close()


async def rush_all(
    suite: Suite, crowd: Crowd, keys: Sequence[Key], at_once: int, seconds: float
) -> list[Key]:
    """Every key, some of them at a time; afterwards each once more, with both of its texts.

    Returns those there was time for.
    """
    left = iter(keys)
    end = time.monotonic() + seconds
    done: list[Key] = []

    async def worker() -> None:
        for key in left:
            if time.monotonic() > end:
                return
            done.append(key)
            order = [number < key.rivals for number in range(key.callers)]
            suite.chance.shuffle(order)
            await crowd.rush(key, order)
            for text in (key.text, key.other):
                key.told.append(await crowd.ask(0, key.name, text))
            reasons = Counter(reason for _, reason, _ in key.told)
            suite.note("key", name=key.name, rivals=key.rivals, told=reasons, won=key.won)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return done


async def findings(
    caller: Grpc, mesh: Mesh, model: ScriptedOpenAi, keys: Sequence[Key], answer: str
) -> list[str]:
    """What is not as it must be, where the model answers this to everybody."""
    rows = await rows_by_key(mesh)
    paid = Counter(str(each.body["messages"][-1]["content"]) for each in model.requests)
    found: list[str] = []
    for key in keys:
        found += _told(key)
        if rows[key.name] != 1:
            found.append(f"effects: {key.name} has {rows[key.name]} runs")
        if paid[key.text] + paid[key.other] != 1:
            found.append(f"paid: {key.name} {paid[key.text]} and {paid[key.other]} times")
        # Where the replies differ, that was said above, and they name no session to look into.
        same = len(key.answers) == 1
        if key.won and same and (kept := await _kept(caller, key)) != [key.won, answer]:
            found.append(f"kept: {key.name} {kept}")
    return found


def _told(key: Key) -> Iterator[str]:
    """What was wrong about the replies to one key."""
    if not key.won:
        yield f"mismatch: {key.name} was answered for several texts, or for none"
    if len(key.answers) != 1:
        yield f"replies: {key.name} has {len(key.answers)} different ones"
    for reason in {reason for _, reason, _ in key.told} - {"", REFUSED}:
        yield f"refused: {key.name} by {reason}"
    right = [reason for text, reason, _ in key.told if text == key.won]
    wrong = [reason for text, reason, _ in key.told if text != key.won]
    if key.won and (any(right) or set(wrong) != {REFUSED}):
        yield f"mismatch: {key.name} {Counter(right)} and {Counter(wrong)}"


async def _kept(caller: Grpc, key: Key) -> list[str]:
    """The conversation of a key's run."""
    (answer,) = key.answers
    session_id = run_pb2.RunEvent.FromString(answer[0]).run_started.session_id
    reply = await caller.unary(
        "history.v1.HistoryService/ListMessages",
        history.ListMessagesRequest(session_id=session_id),
        history.ListMessagesResponse,
    )
    return [each.text for each in reply.messages]


async def rows_by_key(mesh: Mesh) -> Counter[str]:
    """How many runs there are under each key, whatever the product says."""
    query = "SELECT idempotency_key FROM {} WHERE idempotency_key IS NOT NULL"
    # What a defect puts before a key of its own counts for the key.
    return Counter(str(key).rpartition("/")[2] for (key,) in await rows(mesh, query, "agents_runs"))


async def rows(mesh: Mesh, query: str, table: str) -> list[tuple[Any, ...]]:
    """Rows as they are in the store, read past the product."""
    file = mesh.data_dir / "plexus.db"
    if file.exists():
        return await asyncio.to_thread(_from_file, file, query.format(table))
    server = PackagedPostgres(mesh.data_dir.absolute() / "postgres")
    connection = await asyncpg.connect(server.url("postgres"))
    try:
        schema = table.partition("_")[0]
        return [tuple(row) for row in await connection.fetch(query.format(f"{schema}.{table}"))]
    finally:
        await connection.close()


def _from_file(file: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(file, timeout=10)) as connection:
        return connection.execute(query).fetchall()
