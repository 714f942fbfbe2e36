"""The use cases: which models there are, and an answer by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace

from services.llm.domain import (
    Delta,
    Event,
    Failed,
    Finished,
    Model,
    Piece,
    Prompt,
    Provider,
    Started,
    Usage,
    estimate_input,
    model_unavailable,
    tokens_in,
    unknown_model,
    utf8_size,
)
from services.runtime.context import current_or_none
from services.runtime.errors import PlexusError

# Kept back from the call's deadline, so that `failed` is sent before the RPC itself is cut.
_MARGIN_SECONDS = 0.25


class LanguageModels:
    """Every model of this installation."""

    def __init__(self, providers: Sequence[Provider], aliases: Mapping[str, str]) -> None:
        """Gather the models.

        Args:
            providers: The first one's first model is the default.
            aliases: Other names by which a model may be asked for, to its full name.
        """
        self._served = {model.name: (each, model) for each in providers for model in each.models}
        self._aliases = aliases
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def models(self) -> list[Model]:
        """Every model, the default one first."""
        return [model for _, model in self._served.values()]

    async def generate(self, name: str, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """Answer a prompt by the model named; an empty name is the default model.

        Yields:
            By the contract's grammar: Started, any Deltas, then one of Finished and Failed.

        Raises:
            NotFound: No provider serves the model.
            InvalidRequest: The provider does not accept the request.
            Unavailable: The provider cannot be reached, or is not willing now.
            ResourceExhausted: Too many generations are under way.
        """
        provider, model = self._find(name)
        prompt = replace(prompt, due=_due())
        with self._counted():
            async with provider.answer(model, prompt) as pieces:
                yield Started(model.name)
                # Closed here, not whenever the interpreter comes to it: a provider's work ends
                # with us.
                async with aclosing(_told_to_the_end(prompt, pieces)) as events:
                    async for event in events:
                        yield event

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """One answer more is under way."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Let the answers under way be finished for some seconds.

        The runs that wait for them may be other processes', which do not end with this one.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def _find(self, name: str) -> tuple[Provider, Model]:
        if not name:
            return next(iter(self._served.values()))
        found = self._served.get(name) or self._served.get(self._aliases.get(name, ""))
        if found is None:
            raise unknown_model(name)
        return found


async def _told_to_the_end(
    prompt: Prompt, pieces: AsyncIterator[Piece]
) -> AsyncGenerator[Event, None]:
    """The pieces, with a terminal event whatever the provider does, and usage in it."""
    # Its size, not the text: the answer itself is not kept here.
    size = 0
    try:
        async for piece in pieces:
            if isinstance(piece, Delta):
                size += utf8_size(piece.text)
                yield piece
            else:
                usage = piece.usage or _estimated(prompt, size)
                yield Finished(piece.reason, usage)
                return
        error: PlexusError = model_unavailable("The model ended without finishing its answer.")
    except PlexusError as raised:
        error = raised
    yield Failed(error, _estimated(prompt, size))


def _estimated(prompt: Prompt, size: int) -> Usage:
    return Usage(estimate_input(prompt.messages), tokens_in(size), estimated=True)


def _due() -> float | None:
    call = current_or_none()
    if call is None or call.deadline is None:
        return None
    remaining = call.deadline - asyncio.get_running_loop().time()
    return call.deadline - min(_MARGIN_SECONDS, remaining / 10)
