"""What a provider has written and nobody has taken yet."""

from __future__ import annotations

import asyncio

from services.llm.domain import Finished


class AnswerBuffer:
    """Between one that writes an answer and one that sends it on.

    A reader takes all that is there at once: what is already waiting travels as one piece, and
    nothing waits in order to travel together. A writer that is far ahead waits.
    """

    def __init__(self, limit: int) -> None:
        """Prepare a buffer; the writer waits while `limit` characters or more are in it."""
        self._limit = limit
        self._texts: list[str] = []
        self._size = 0
        self._end: Finished | Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, text: str) -> None:
        """Add text, and wait until there is room for more."""
        self._texts.append(text)
        self._size += len(text)
        self._news.set()
        while self._size >= self._limit:
            self._room.clear()
            await self._room.wait()

    def end(self, how: Finished | Exception) -> None:
        """Nothing follows: it ended so, or is raised to the reader after the text before it."""
        self._end = how
        self._news.set()

    async def take(self) -> str | Finished:
        """All the text there is, as soon as there is any; then how it ended.

        Raises:
            Exception: The one it ended with.
        """
        await self._news.wait()
        if self._texts:
            text = "".join(self._texts)
            self._texts.clear()
            self._size = 0
            self._room.set()
            if self._end is None:
                self._news.clear()
            return text
        if isinstance(self._end, Finished):
            return self._end
        assert self._end is not None
        raise self._end
