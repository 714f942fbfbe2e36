"""llm without its wire: real stores, real HTTP to scripted model servers, and its use cases."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from services.llm.classifying import TaskClassifier
from services.llm.domain.configuration import Provider, ProviderLimits, ProviderModel, Route
from services.llm.domain.generation import Event, Message, Prompt, Role
from services.llm.domain.routing import Candidate, Capability, Plan, Price
from services.llm.lately import Lately
from services.llm.providers.offline import OfflineProvider
from services.llm.service.attempts import Attempts
from services.llm.service.backends import Backends
from services.llm.service.capabilities import Capabilities
from services.llm.service.catalogue import Catalogue
from services.llm.service.choosing import Ask, Chooser
from services.llm.service.generating import Generations
from services.llm.service.metering import Meter
from services.llm.service.spending import Spending
from services.llm.store import routes
from services.llm.store.usage import COUNTS
from services.llm.tables import replies
from services.runtime.context import CallContext, Principal, acting_as, serving
from services.runtime.crypto import MasterKey
from services.runtime.db import Database
from services.runtime.egress import Egress
from services.runtime.ids import new_id
from services.runtime.replies import Replies
from services.runtime.tasks import Tasks
from tests.services.llm.scripted_openai import ScriptedOpenAi

MIGRATIONS = Path(__file__).parents[3] / "services" / "llm" / "migrations"
ALICE = Principal("ten_a", "usr_a", "tok_a", frozenset({2}))
BOB = Principal("ten_b", "usr_b", "tok_b", frozenset({2}))
MASTER = MasterKey(bytes(range(32)))
EVERYTHING = frozenset({Capability.TOOLS, Capability.JSON, Capability.VISION})
DEAR, CHEAP = Price(2_000_000, 8_000_000), Price(100_000, 400_000)


@dataclass
class Desk:
    """A process's worth of llm, which can end without notice and start again."""

    database: Database
    folder: Path
    servers: dict[str, ScriptedOpenAi] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    silence: float = 2.0
    limit: int = 8
    instance: str = "only"
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def upstream(self, name: str, price: Price = CHEAP) -> ScriptedOpenAi:
        """A model server, which the provider of this name calls; its model is `tiny`."""
        server = await self.stack.enter_async_context(ScriptedOpenAi())
        self.servers[name], self.prices[name] = server, price
        return server

    def _provider(self, name: str, server: ScriptedOpenAi) -> Provider:
        models = tuple(
            ProviderModel(each, 10_000, 0, self.prices[name], EVERYTHING | more)
            for each, more in (("tiny", frozenset()), ("vectors", {Capability.EMBEDDINGS}))
        )
        limits = ProviderLimits(self.limit, self.silence)
        return Provider(name, "", name, server.url, b"", "", models, limits, True, 1, 0, "")

    async def open(self) -> None:
        """Begin a process."""
        self.tasks = Tasks()
        shared = [self._provider(*each) for each in self.servers.items()]
        self.catalogue = Catalogue(self.database, shared, {}, Lately())
        offline = OfflineProvider()
        self.stack.push_async_callback(offline.close)
        self.backends = Backends(MASTER, Egress(), offline)
        self.stack.push_async_callback(self.backends.close)
        self.meter = Meter(self.database, self.folder, self.instance, self.tasks)
        chooser = Chooser(self.catalogue, TaskClassifier())
        attempts = Attempts(self.catalogue, self.backends)
        self.generations = Generations(self.catalogue, chooser, attempts, self.meter, MASTER)
        self.capabilities = Capabilities(
            self.catalogue, chooser, self.backends, self.meter, self.generations
        )
        self.spending = Spending(self.database, Replies(replies, MASTER))
        await self.meter.start()

    async def die(self) -> None:
        """End without a word, as a killed process does: its journal stays, and is unlocked."""
        await self.tasks.stop()
        assert self.meter._journal._map is not None
        self.meter._journal._map.close()
        os.close(self.meter._journal._file)

    async def route(self, *models: str, who: Principal = ALICE, **values: Any) -> str:
        """A route of a tenant; gives what a request names."""
        names = [each if "/" in each else f"{each}/tiny" for each in models]
        classes = values.pop("classes", ())
        weights = values.pop("weights", [0] * len(names))
        candidates = tuple(map(Candidate, names, weights))
        route_id = new_id("rte")
        name = f"r{route_id[-6:]}"
        plan = Plan(candidates, **values)
        async with self.database.transaction((who.tenant_id,)) as connection:
            await routes.add(connection, Route(route_id, who.tenant_id, name, classes, plan, 1, 1))
        self.catalogue.forget(who.tenant_id)
        return f"route/{name}"

    async def answer(self, ask: Ask, who: Principal = ALICE, seconds: float = 10) -> list[Event]:
        """Every event of an answer."""
        with calling(who, seconds):
            return [event async for event in self.generations.generate(ask)]

    async def usage(self, *columns: str, who: Principal = ALICE) -> list[dict[str, Any]]:
        """A report."""
        with acting_as(who):
            found = await self.spending.report(who, columns, ("", ""), 100, ())
        return [each.by | each.counts for each in found]

    async def total(self, who: Principal = ALICE) -> dict[str, int]:
        """All sums of a tenant, once nothing is owed any more."""
        await self.meter.drain(5)
        return {name: (await self.usage(who=who))[0][name] for name in COUNTS}


def calling(who: Principal, seconds: float = 10) -> Any:
    """A call with a deadline."""
    now = asyncio.get_running_loop().time()
    return serving(CallContext("req", "trace", who, deadline=now + seconds))


def asked(text: str = "Hello", model: str = "", **values: Any) -> Ask:
    """What somebody asks."""
    own = {"key", "digest", "task_class", "limits", "switch_midway", "agent_id", "session_id"}
    prompt = Prompt(
        (Message(Role.USER, text),),
        **{name: value for name, value in values.items() if name not in own},
    )
    found = Ask(prompt, model)
    return replace(found, **{name: value for name, value in values.items() if name in own})


def tried(servers: Sequence[ScriptedOpenAi]) -> list[int]:
    """How many requests each got."""
    return [len(each.requests) for each in servers]
