"""What models can do besides conversations: vectors, judgements, calls of functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from services.llm.domain.generation import (
    Backend,
    Embedded,
    Failed,
    Finished,
    Judgement,
    Message,
    Model,
    Prompt,
    Role,
    Started,
    ToolCall,
    ToolDelta,
    Usage,
    model_unavailable,
    unknown_model,
)
from services.llm.domain.generation import Delta as TextDelta
from services.llm.domain.ledger import Kept, State
from services.llm.domain.routing import Capability
from services.llm.service.backends import Backends
from services.llm.service.catalogue import Catalogue, Served
from services.llm.service.choosing import Ask, Chooser
from services.llm.service.generating import Generations, due
from services.llm.service.metering import Meter
from services.runtime.context import principal
from services.runtime.errors import PlexusError

_Result = TypeVar("_Result")
EMBEDDING = "embedding"


@dataclass(slots=True)
class Called:
    """The functions that a model chose, what it said besides, and what it took."""

    model: str = ""
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    usage: Usage = Usage(0, 0, estimated=False)


class Capabilities:
    """Uses them."""

    def __init__(
        self,
        catalogue: Catalogue,
        chooser: Chooser,
        backends: Backends,
        meter: Meter,
        generations: Generations,
    ) -> None:
        self._catalogue = catalogue
        self._chooser = chooser
        self._backends = backends
        self._meter = meter
        self._generations = generations

    async def models(self) -> list[Model]:
        """Every model that the caller can call."""
        view = await self._catalogue.view(principal().tenant_id)
        return [each.model for each in view.served.values()]

    async def embed(
        self, model: str, texts: Sequence[str], dimensions: int | None, agent_id: str
    ) -> tuple[str, Embedded, Usage]:
        """Vectors, by a model or a route; an empty name is the route of the class `embedding`.

        Raises:
            NotFound: UNKNOWN_MODEL: there is none, or none that can.
            Unavailable: MODEL_UNAVAILABLE.
            ResourceExhausted: BUDGET_SPENT.
        """

        async def work(backend: Backend, served: Served) -> tuple[Embedded, Usage | None]:
            found = await backend.embed(served.name_there, texts, dimensions, due())
            return found, found.usage

        return await self._metered(Capability.EMBEDDINGS, model, EMBEDDING, texts, agent_id, work)

    async def moderate(self, model: str, texts: Sequence[str]) -> tuple[str, Sequence[Judgement]]:
        """Judgements, by a model; an empty name is the first that can.

        Raises:
            NotFound: UNKNOWN_MODEL: there is none, or none that can.
            Unavailable: MODEL_UNAVAILABLE.
            ResourceExhausted: BUDGET_SPENT.
        """

        async def work(
            backend: Backend, served: Served
        ) -> tuple[Sequence[Judgement], Usage | None]:
            return await backend.moderate(served.name_there, texts, due()), None

        name, found, _ = await self._metered(Capability.MODERATION, model, "", texts, "", work)
        return name, found

    async def functions(self, ask: Ask) -> Called:
        """The functions that a model chooses for a conversation.

        Raises:
            PlexusError: As for an answer; also where it broke off.
        """
        found = Called()
        pieces: dict[int, list[ToolDelta]] = {}
        async with aclosing(self._generations.generate(ask)) as events:
            async for event in events:
                if isinstance(event, Started):
                    found.model = event.model
                elif isinstance(event, TextDelta):
                    found.text += event.text
                elif isinstance(event, ToolDelta):
                    pieces.setdefault(event.index, []).append(event)
                elif isinstance(event, Failed):
                    raise event.error
                elif isinstance(event, Finished) and event.usage is not None:
                    found.usage = event.usage
        found.calls = [joined(pieces[index]) for index in sorted(pieces)]
        return found

    async def _metered(
        self,
        capability: Capability,
        model: str,
        task_class: str,
        texts: Sequence[str],
        agent_id: str,
        work: Callable[[Backend, Served], Awaitable[tuple[_Result, Usage | None]]],
    ) -> tuple[str, _Result, Usage]:
        """Try the candidates in turn, and enter what it took."""
        who = principal()
        view = await self._catalogue.view(who.tenant_id)
        if not model and task_class not in view.by_class:
            able = (
                name for name, each in view.served.items() if capability in each.model.capabilities
            )
            model = next(able, "")
            if not model:
                raise unknown_model(f"any with {capability.name}")
        prompt = Prompt([Message(Role.USER, text) for text in texts], due=due())
        ask = Ask(prompt, model=model, task_class=task_class, agent_id=agent_id)
        chosen = self._chooser.choose(view, ask, capability)
        call = await self._meter.begin(self._generations.new_call(who, ask, chosen, answer=0))
        assert not isinstance(call, Kept)
        error: PlexusError = model_unavailable("No model answered.")
        state, usage = State.CANCELLED, Usage(0, 0, estimated=False)
        try:
            for served in chosen.candidates:
                call.model, call.price = served.model.name, served.model.price
                try:
                    async with self._backends.of(served.provider) as backend:
                        result, told = await work(backend, served)
                except PlexusError as raised:
                    state, error = State.FAILED, raised
                    continue
                state, usage = State.FINISHED, call.usage(told)
                return served.model.name, result, usage
            raise error
        finally:
            if state is State.CANCELLED:
                self._meter.end_later(call, state, usage)
            else:
                await self._meter.end(call, state, usage)


def joined(pieces: Sequence[ToolDelta]) -> ToolCall:
    """A call out of its pieces."""
    named = next((each for each in pieces if each.name), pieces[0])
    return ToolCall(named.tool_call_id, named.name, "".join(each.arguments for each in pieces))
