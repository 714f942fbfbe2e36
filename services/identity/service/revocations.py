"""Telling verifiers what is revoked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from services.identity import store
from services.identity.domain import Revocation
from services.runtime import clock
from services.runtime.db import Database

# A revocation is known everywhere within a second; the table is the bus between replicas.
_POLL_SECONDS = 0.3
# The contract promises a sign of life every two.
_QUIET_SECONDS = 1.5


class RevocationWatch:
    """Follows the revocations of all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ending = asyncio.Event()

    async def end(self, _: float) -> None:
        """End every stream: a listener goes to another replica, and no stop has to wait for it."""
        self._ending.set()

    async def changes(self) -> AsyncGenerator[Sequence[Revocation], None]:
        """Everything that is revoked, then additions, and an empty list now and then."""
        loop = asyncio.get_running_loop()
        found, last = await self._since(0)
        yield found
        said = loop.time()
        while not await self._ends_within(_POLL_SECONDS):
            found, last = await self._since(last)
            if found or loop.time() - said >= _QUIET_SECONDS:
                yield found
                said = loop.time()

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
        return self._ending.is_set()

    async def _since(self, sequence: int) -> tuple[Sequence[Revocation], int]:
        async with self._database.read() as connection:
            return await store.revocations.since(connection, sequence, clock.now())
