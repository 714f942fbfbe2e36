"""The built-in model, which needs nothing and answers from what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from services.llm.domain import (
    Delta,
    Finished,
    FinishReason,
    Model,
    Piece,
    Prompt,
    Usage,
    cut_to_tokens,
    estimate_input,
    estimate_tokens,
)
from services.llm.gate import Gate
from services.llm.providers.extractive import MAX_CHARACTERS, NAME, answer

# So few characters take less time than a thread's start.
_SMALL = 4_000
_WAITING = 256
_GROUP = 40
# A token is about four characters, by this module's estimate.
_WINDOW = MAX_CHARACTERS // 4


class OfflineProvider:
    """Extractive: the same conversation gets the same answer; temperature means nothing to it."""

    def __init__(self) -> None:
        self.models = (Model(NAME, "offline", _WINDOW),)
        # One thread: more would only take turns at the interpreter's lock.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offline-model")
        self._gate = Gate(1, waiting=_WAITING, name="offline_generations")

    def close(self) -> None:
        """Forget what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def answer(self, model: Model, prompt: Prompt) -> AsyncIterator[AsyncIterator[Piece]]:
        """See Provider."""
        if sum(len(each.text) for each in prompt.messages) <= _SMALL:
            text = answer(prompt.messages)
        else:
            async with self._gate.slot():
                loop = asyncio.get_running_loop()
                text = await loop.run_in_executor(self._thread, answer, prompt.messages)
        yield _pieces(text, prompt)


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
