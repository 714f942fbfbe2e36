"""A bound on what is under way at one time, with a short queue before it."""

from __future__ import annotations

import asyncio
from collections import deque


class Full(Exception):
    """No place is free, and the queue is full or did not move in time."""


class Bulkhead:
    """So many places, and a queue in order of arrival."""

    def __init__(self, places: int, queue: int, seconds: float) -> None:
        """Make one.

        Args:
            places: How many may be inside.
            queue: How many may wait.
            seconds: How long one may wait.
        """
        self._places = places
        self._free = places
        self._queue = queue
        self._seconds = seconds
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def used(self) -> int:
        """How many are inside."""
        return self._places - self._free

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self) -> bool:
        """Take a place at once, if one is free and nobody waits for it."""
        if not self._free or self._waiting:
            return False
        self._free -= 1
        return True

    def queue(self) -> asyncio.Future[None]:
        """Stand in the queue; what comes back is done when `wait` may go on.

        Raises:
            Full: The queue is as long as it may be.
        """
        if len(self._waiting) >= self._queue:
            raise Full
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return turn

    async def wait(self, turn: asyncio.Future[None], seconds: float) -> None:
        """Wait for a place. Whoever leaves the queue early leaves no place behind.

        Args:
            turn: From `queue`.
            seconds: How long at most.

        Raises:
            Full: It took too long.
        """
        try:
            async with asyncio.timeout(min(self._seconds, seconds)):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place came at the moment of leaving
            else:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Full from error
            raise

    def leave(self) -> None:
        """Give a place back; who waited longest has it."""
        for turn in self._waiting:
            if not turn.done():
                self._waiting.remove(turn)
                turn.set_result(None)
                return
        self._free += 1
