"""Which shelf of the index serves, how far each is, and a new one beside it."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence

from services.context.domain.conditions import TENANT
from services.context.domain.entries import Payload
from services.context.index.backend import Backend, Point
from services.runtime import clock
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id

# No tenant has this name: what stands under it is found by nobody.
_OURS = "\x01"
_NAMESPACE = uuid.UUID("0e9c2e0e-0f8e-4d64-a8f4-9f3a1d5a3f10")
_MADE = "made"
_MODELS = "models"
# What a shelf has room for: each model's vectors are a space of their own.
_MOST_MODELS = 4
# How long a process believes that the same shelf serves: another may have put one in its place,
# which keeps the one before for longer than this and a call together.
_SURE_SECONDS = 5.0


class Library:
    """The shelves of an index.

    How far a shelf is stands in it, as a point like others that is written after what it tells
    of: the two cannot disagree, whatever ends when.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._serving = ""
        self._sure_until = 0.0
        self._moved = asyncio.Event()
        self._preparing = asyncio.Lock()

    async def serving(self) -> str:
        """The shelf that serves.

        Raises:
            Unavailable: The index does not answer, or has none yet.
        """
        if not self._serving or time.monotonic() > self._sure_until:
            self._serving, _ = await self.backend.shelves()
            self._sure_until = time.monotonic() + _SURE_SECONDS
        if not self._serving:
            raise Unavailable("The index is being made.", retry_after=1)
        return self._serving

    def forget(self) -> None:
        """Ask again which shelf serves: another process may have put one in its place."""
        self._serving = ""

    async def prepare(self) -> None:
        """Make a first shelf where there is none."""
        async with self._preparing:
            serving, _ = await self.backend.shelves()
            if not serving:
                await self.backend.serve(await self._make())
            self.forget()

    async def check(self) -> None:
        """Whether the index answers.

        Raises:
            Unavailable: It does not.
        """
        await self.backend.payloads(await self.serving(), [_place(_MADE)])

    async def building(self) -> str:
        """The shelf that is being made beside the one that serves; empty where none is."""
        serving, shelves = await self.backend.shelves()
        beside = [each for each in shelves if each > serving]
        return beside[-1] if serving and beside else ""

    async def build(self) -> str:
        """Begin a shelf beside the one that serves, or give the one that is begun."""
        return await self.building() or await self._make()

    async def _make(self) -> str:
        # Their names sort by the time at which they were begun.
        shelf = new_id("idx")
        await self.backend.create(shelf)
        await self._write(shelf, _MADE, clock.now())
        return shelf

    async def swap(self, shelf: str) -> None:
        """Let a shelf serve in place of the one before, which is kept for who reads it still."""
        await self.backend.serve(shelf)
        self.forget()

    async def tidy(self) -> None:
        """Drop the shelves that served before."""
        serving, shelves = await self.backend.shelves()
        for shelf in shelves:
            if shelf < serving:
                await self.backend.drop(shelf)

    async def positions(self, shelf: str, feeds: Sequence[str]) -> Mapping[str, int]:
        """The last position of each feed that a shelf has taken in."""
        found = await self.backend.payloads(shelf, [_place(feed) for feed in feeds])
        return {feed: int(found.get(_place(feed), {}).get("position", 0)) for feed in feeds}

    async def models(self, shelf: str) -> Sequence[str]:
        """The models of embeddings that a shelf has vectors of."""
        found = await self.backend.payloads(shelf, [_place(_MODELS)])
        return list(found.get(_place(_MODELS), {}).get("models", ()))

    async def add_model(self, shelf: str, model: str, size: int) -> bool:
        """Make room for a model's vectors; False where a shelf has as many models as it may."""
        known = await self.models(shelf)
        if model in known:
            return True
        if len(known) >= _MOST_MODELS:
            return False
        await self.backend.add_space(shelf, space_of(model), size)
        payload: Payload = {TENANT: _OURS, "models": [*known, model]}
        await self.backend.upsert(shelf, [Point(_place(_MODELS), payload)])
        return True

    async def create_time(self, shelf: str) -> int:
        """When a shelf was begun."""
        found = await self.backend.payloads(shelf, [_place(_MADE)])
        return int(found.get(_place(_MADE), {}).get("position", 0))

    async def mark(self, shelf: str, feed: str, position: int) -> None:
        """Note how far a shelf is, when all before it is in."""
        await self._write(shelf, feed, position)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait_moved(self, seconds: float) -> None:
        """Wait until a shelf may be farther than before, but not for long."""
        moved = self._moved
        try:
            async with asyncio.timeout(seconds):
                await moved.wait()
        except TimeoutError:
            return

    async def _write(self, shelf: str, name: str, position: int) -> None:
        payload: Payload = {TENANT: _OURS, "position": float(position)}
        await self.backend.upsert(shelf, [Point(_place(name), payload)])


def space_of(model: str) -> str:
    """The name of a model's space of vectors: a model's own name may hold what that must not."""
    return f"m{hashlib.sha256(model.encode()).hexdigest()[:16]}"


def _place(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
