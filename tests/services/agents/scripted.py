"""Stand-ins for history and llm behind the protocols that agents knows them by.

They do what a test scripts, such as failing at a chosen word; the real modules are used in
tests/e2e.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from services.agents.domain import Agent, Citation, Source
from services.agents.ports import Answering, Asks, Chunk, Finish, Prompt, Said
from services.runtime.errors import NotFound, PlexusError, Unavailable

Step = str | Exception | Finish | float


class ScriptedHistory:
    """Keeps messages in memory; `failing` is raised by the next appends, one each."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, Said, bool]] = {}
        self.failing: list[PlexusError] = []

    async def require_session(self, session_id: str) -> None:
        """See History."""
        if not any(session == session_id for session, _, _ in self.kept.values()):
            raise NotFound.of("session")

    async def append(
        self, *, session_id: str, message_id: str, said: Said, run_id: str, partial: bool
    ) -> bool:
        """See History."""
        if self.failing:
            raise self.failing.pop(0)
        self.kept.setdefault(message_id, (session_id, said, partial))
        return not self.kept[message_id][2]

    async def window(self, session_id: str, max_tokens: int) -> Sequence[Said]:
        """See History."""
        return [said for session, said, _ in self.kept.values() if session == session_id]

    def answers(self) -> list[tuple[str, bool]]:
        """What agents said, and whether it is partial."""
        return [(said.text, partial) for _, said, partial in self.kept.values() if said.by_agent]


class ScriptedKnowledge:
    """Is away unless it has a prompt; cites what it is told, or raises it."""

    def __init__(self) -> None:
        self.known: Prompt | None = None
        self.cited: Sequence[Citation] | PlexusError = ()
        self.asked: list[tuple[str, int]] = []

    async def prompt(self, agent: Agent, session_id: str, asked: str, max_tokens: int) -> Prompt:
        """See Knowledge."""
        self.asked.append((asked, max_tokens))
        if self.known is None:
            raise Unavailable("The index does not answer.")
        return self.known

    async def citations(self, answer: str, sources: Sequence[Source]) -> Sequence[Citation]:
        """See Knowledge."""
        if isinstance(self.cited, PlexusError):
            raise self.cited
        return self.cited


class ScriptedModels:
    """Writes what it is told: text, a pause in seconds, an error, or a finish."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self.asked: list[Prompt] = []
        self.stopped = asyncio.Event()
        self.on_step: Callable[[], None] = lambda: None

    async def context_window(self, model: str) -> int:
        """See Models."""
        return 8_000

    async def answer(self, asks: Asks) -> AsyncGenerator[Answering | Chunk | Finish, None]:
        """See Models."""
        self.asked.append(asks.prompt)
        try:
            yield Answering("scripted/model")
            for step in self.steps:
                self.on_step()
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Finish):
                    yield step
                    return
                if isinstance(step, str):
                    yield Chunk(step)
                else:
                    await asyncio.sleep(step)
            yield Finish(10, 5)
        finally:
            self.stopped.set()
