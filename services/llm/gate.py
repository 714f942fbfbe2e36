"""How many may do something at one time, and how many may wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.llm.domain.generation import limit_reached


class Gate:
    """A bound with a short queue: a long one would only hide that there is too much to do."""

    def __init__(self, limit: int, waiting: int, name: str) -> None:
        """Prepare a gate.

        Args:
            limit: How many are let through at one time.
            waiting: How many may wait.
            name: What the bound is called in `metadata.limit`.
        """
        self._slots = asyncio.Semaphore(limit)
        self._room = waiting
        self._name = name

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots, after a wait if there is none free.

        Raises:
            ResourceExhausted: Too many wait already.
        """
        if self._slots.locked():
            await self._wait()
        else:
            # Does not suspend: a slot is free and nobody waits for it.
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _wait(self) -> None:
        if not self._room:
            raise limit_reached(
                "Too many answers are being generated. Try again.", self._name, retry_after=1
            )
        self._room -= 1
        try:
            await self._slots.acquire()
        finally:
            self._room += 1
