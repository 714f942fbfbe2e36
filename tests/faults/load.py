"""Load on an installation: clients that do one run after another, and what they were told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.history.v1 import history_service_pb2 as history
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.llm.v1 import llm_service_pb2 as llm

from tests.e2e.callers import Caller, Grpc, Rest
from tests.e2e.conftest import PASSWORD, new_email
from tests.e2e.mesh import Mesh
from tests.faults.told import NOT_NOW, Eager, Findings, Told, follow

Call = Callable[[], Awaitable[object]]
_PAUSE = 0.05
_AFTER_FAILURE = 0.5


@dataclass
class Load:
    """Clients of an installation.

    Attributes:
        told: What each run's client saw.
        limit: How many runs are begun at all.
        patience: After how many silent seconds a client leaves a stream and asks again.
        pause: Seconds between a client's runs.
    """

    mesh: Mesh
    found: Findings
    grpc: Grpc
    rest: Rest
    email: str
    limit: int
    patience: float | None = None
    pause: float = 0.0
    told: list[Told] = field(default_factory=list)
    stopping: bool = False
    working: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """How many runs have ended, as far as their clients saw."""
        return sum(each.ended for each in self.told)

    async def work(self, number: int) -> None:
        """One client: every fourth speaks REST."""
        caller: Caller = self.rest if number % 4 == 3 else self.grpc
        while not self.stopping and len(self.told) < self.limit:
            told = Told(f"{number}-{len(self.told)}")
            self.told.append(told)
            await follow(caller, told, self.found, patience=self.patience)
            await asyncio.sleep(self.pause)
            if told.seen and not told.seen[-1].HasField("run_completed"):
                # Nobody asks the next thing at once where the last one failed at once.
                await asyncio.sleep(_AFTER_FAILURE)

    async def finish(self, seconds: float = 30) -> None:
        """Let every client see its run through; who hangs has seen no end, and that is judged."""
        self.stopping = True
        done, _ = await asyncio.wait(self.working, timeout=seconds)
        for each in done:
            each.result()

    async def repeat(self, told: Told) -> None:
        """The same key again gives the same run, from its first event."""
        again = Told(told.key)
        await follow(self.grpc, again, self.found)
        if again.seen != told.seen:
            self.found.add(
                "twice", f"{told.key}: {again.seen[0].run_id} after {told.seen[0].run_id}"
            )

    async def ask(self, kind: str) -> None:
        """One call that needs a module.

        Raises:
            PlexusError: It was refused.
        """
        match kind:
            case "identity":
                await self.grpc.unary(
                    "identity.v1.IdentityService/AuthenticateUser",
                    identity.AuthenticateUserRequest(email=self.email, password=PASSWORD),
                    identity.AuthenticateUserResponse,
                )
            case "llm":
                await self.grpc.unary(
                    "llm.v1.LlmService/ListModels", llm.ListModelsRequest(), llm.ListModelsResponse
                )
            case "history":
                await self.grpc.unary(
                    "history.v1.HistoryService/ListSessions",
                    history.ListSessionsRequest(page_size=1),
                    history.ListSessionsResponse,
                )
            case _:
                await self.grpc.unary(
                    "agents.v1.AgentsService/ListAgents",
                    agents.ListAgentsRequest(),
                    agents.ListAgentsResponse,
                )

    async def recovery(self, kind: str, since: float) -> float:
        """Seconds from a moment to the first success of a call that needs a module."""
        while True:
            try:
                await self.ask(kind)
            except NOT_NOW as error:
                self.found.refused(error, f"recovery of {kind}")
                await asyncio.sleep(_PAUSE)
            else:
                return time.monotonic() - since


@asynccontextmanager
async def load(
    mesh: Mesh,
    found: Findings,
    *,
    clients: int,
    limit: int,
    patience: float | None = None,
    pause: float = 0.0,
) -> AsyncIterator[Load]:
    """So many clients at work while the block runs."""
    grpc, rest = Eager(mesh.url), Rest(mesh.url)
    email = new_email()
    try:
        await grpc.unary(
            "identity.v1.IdentityService/RegisterUser",
            identity.RegisterUserRequest(email=email, password=PASSWORD, display_name="Ada"),
            identity.RegisterUserResponse,
        )
        tokens = await grpc.unary(
            "identity.v1.IdentityService/AuthenticateUser",
            identity.AuthenticateUserRequest(email=email, password=PASSWORD),
            identity.AuthenticateUserResponse,
        )
        grpc.token = rest.token = tokens.access_token
        made = Load(mesh, found, grpc, rest, email, limit, patience, pause)
        made.working = [asyncio.create_task(made.work(number)) for number in range(clients)]
        try:
            yield made
        finally:
            for each in made.working:
                each.cancel()
            await asyncio.gather(*made.working, return_exceptions=True)
    finally:
        await grpc.close()
        await rest.close()
