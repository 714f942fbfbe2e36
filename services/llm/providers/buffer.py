"""What a provider has written and nobody has taken yet."""

from __future__ import annotations

import asyncio
from collections import deque

from services.llm.domain.generation import Delta, Finished, Piece, ToolDelta


class AnswerBuffer:
    """Between one that writes an answer and one that sends it on.

    A reader takes all that is there at once: what is already waiting travels as one piece, and
    nothing waits in order to travel together. A writer that is far ahead waits.
    """

    def __init__(self, limit: int) -> None:
        """Prepare a buffer; it is full while `limit` characters or more are in it."""
        self._limit = limit
        self._written: deque[str | ToolDelta] = deque()
        self._size = 0
        self._end: Finished | Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def put(self, written: str | ToolDelta) -> None:
        """Add text or a piece of a call."""
        self._written.append(written)
        self._size += len(written if isinstance(written, str) else written.arguments) or 1
        self._news.set()

    @property
    def full(self) -> bool:
        """Whether the writer is far ahead, and must wait for `room`."""
        return self._size >= self._limit

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    def end(self, how: Finished | Exception) -> None:
        """Nothing follows: it ended so, or is raised to the reader after the text before it."""
        self._end = how
        self._news.set()

    async def take(self) -> Piece:
        """All the text there is, or a piece of a call, as soon as there is any; then how it ended.

        Raises:
            Exception: The one it ended with.
        """
        await self._news.wait()
        if self._written:
            piece = self._next()
            if not self._written:
                self._size = 0
                self._room.set()
                if self._end is None:
                    self._news.clear()
            return piece
        if isinstance(self._end, Finished):
            return self._end
        assert self._end is not None
        raise self._end

    def _next(self) -> Piece:
        texts: list[str] = []
        while self._written:
            first = self._written[0]
            if isinstance(first, ToolDelta):
                if texts:
                    break
                self._written.popleft()
                return first
            texts.append(first)
            self._written.popleft()
        return Delta("".join(texts))
