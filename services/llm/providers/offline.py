"""The built-in model, which needs nothing and answers from what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from services.llm.domain.generation import (
    Delta,
    Embedded,
    Finished,
    FinishReason,
    Judgement,
    Piece,
    Prompt,
    Usage,
    cut_to_tokens,
    estimate_input,
    estimate_tokens,
    model_refused,
)
from services.llm.gate import Gate
from services.llm.providers.extractive import answer

# So few characters take less time than a thread's start.
_SMALL = 4_000
_WAITING = 256
_GROUP = 40


class OfflineProvider:
    """Extractive: the same conversation gets the same answer; temperature means nothing to it."""

    def __init__(self) -> None:
        # One thread: more would only take turns at the interpreter's lock.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offline-model")
        self._gate = Gate(1, waiting=_WAITING, name="offline_generations")

    async def close(self) -> None:
        """Forget what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def answer(self, model: str, prompt: Prompt) -> AsyncIterator[AsyncIterator[Piece]]:
        """See Provider."""
        if sum(len(each.text) for each in prompt.messages) <= _SMALL:
            text = answer(prompt.messages)
        else:
            async with self._gate.slot():
                loop = asyncio.get_running_loop()
                text = await loop.run_in_executor(self._thread, answer, prompt.messages)
        yield _pieces(text, prompt)

    async def embed(
        self, model: str, texts: Sequence[str], dimensions: int | None, due: float | None
    ) -> Embedded:
        """See Backend: it has no vectors."""
        raise model_refused("The offline model makes no vectors.")

    async def moderate(
        self, model: str, texts: Sequence[str], due: float | None
    ) -> Sequence[Judgement]:
        """See Backend: it does not judge."""
        raise model_refused("The offline model judges no texts.")


async def _pieces(text: str, prompt: Prompt) -> AsyncIterator[Piece]:
    kept, cut = cut_to_tokens(text, prompt.max_output_tokens)
    for group in _groups(kept):
        yield Delta(group)
    usage = Usage(estimate_input(prompt.messages), estimate_tokens(kept), estimated=True)
    yield Finished(FinishReason.LENGTH if cut else FinishReason.STOP, usage)


def _groups(text: str) -> Iterator[str]:
    """A few words at a time."""
    start = 0
    while start < len(text):
        space = text.find(" ", start + _GROUP)
        end = len(text) if space < 0 else min(space + 1, start + 2 * _GROUP)
        yield text[start:end]
        start = end
