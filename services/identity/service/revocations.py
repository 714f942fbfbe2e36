"""Telling verifiers what is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from services.identity import store
from services.identity.domain import Revocation
from services.runtime import clock
from services.runtime.db import Database
from services.runtime.shared import Notices, Subscription

# Whoever revokes publishes here, once it is committed.
TOPIC = "identity.revocations"
# A revocation is known everywhere within a second. The table is what replicas go by; a notice says
# when to look, and without one it is looked at anyway: a lost notice breaks no promise.
_POLL_SECONDS = 0.3
_NOTIFIED_POLL_SECONDS = 0.8
# The contract promises a sign of life every two.
_QUIET_SECONDS = 1.5


class RevocationWatch:
    """Follows the revocations of all replicas."""

    def __init__(self, database: Database, notices: Notices) -> None:
        self._database = database
        self._notices = notices
        self._ending = asyncio.Event()

    async def end(self, _: float) -> None:
        """End every stream: a listener goes to another replica, and no stop has to wait for it."""
        self._ending.set()

    async def changes(self) -> AsyncGenerator[Sequence[Revocation], None]:
        """Everything that is revoked, then additions, and an empty list now and then."""
        loop = asyncio.get_running_loop()
        async with self._notices.subscribe(TOPIC) as subscription:
            found, last = await self._since(0)
            yield found
            said = loop.time()
            while not await self._ends_before_news(subscription, said + _QUIET_SECONDS):
                found, last = await self._since(last)
                if found or loop.time() - said >= _QUIET_SECONDS:
                    yield found
                    said = loop.time()

    async def _ends_before_news(self, subscription: Subscription, latest: float) -> bool:
        """Wait until there may be something new, until something must be said, or the end."""
        pause = _NOTIFIED_POLL_SECONDS if self._notices.working else _POLL_SECONDS
        left = max(0.0, latest - asyncio.get_running_loop().time())
        waits = (
            asyncio.create_task(subscription.wait(min(pause, left))),
            asyncio.create_task(self._ending.wait()),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        return self._ending.is_set()

    async def _since(self, sequence: int) -> tuple[Sequence[Revocation], int]:
        async with self._database.read(()) as connection:
            return await store.revocations.since(connection, sequence, clock.now())
