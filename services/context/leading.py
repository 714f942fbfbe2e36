"""Which of several processes keeps the index: one writes, whatever order others read in.

Two that take the same feed in, one a little behind the other, would put back what the other had
taken out.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from sqlalchemy import select, update

from services.context.tables import leader, owners
from services.runtime.db import EVERYONE, Database
from services.runtime.db.base import upsert
from services.runtime.leases import RENEW_SECONDS, Lease

_DUTY = "index"


class Leads(Protocol):
    """Whether this process keeps the index."""

    async def wait(self) -> None:
        """Wait until it does."""
        ...


class Leadership(Lease):
    """The lease of this process, and its claim to keep the index."""

    def __init__(self, database: Database, instance: str) -> None:
        super().__init__(database, owners, instance)
        self._database = database
        self._leads = asyncio.Event()

    async def wait(self) -> None:
        """See Leads."""
        await self._leads.wait()

    async def keep(self) -> None:
        """Renew the lease, and take the duty up where nobody has it."""
        try:
            while True:
                await self.renew()
                # Longer, and others take it up.
                async with asyncio.timeout(2 * RENEW_SECONDS):
                    await self.claim()
                await asyncio.sleep(RENEW_SECONDS)
        finally:
            # Whoever cannot say that it is there must not write.
            self._leads.clear()

    async def claim(self) -> bool:
        """Take the duty up where nobody has it; whether this process has it now.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.transaction(EVERYONE) as connection:
            dead = await self.silent(connection)
            await self.bury(connection, dead)
            first = upsert(self._database.dialect, leader).values(duty=_DUTY, owner=self.owner)
            await connection.execute(first.on_conflict_do_nothing())
            gone = leader.c.owner.not_in(select(owners.c.owner))
            taken = update(leader).where(leader.c.duty == _DUTY, gone).values(owner=self.owner)
            await connection.execute(taken)
            found = await connection.execute(select(leader.c.owner))
            leads = found.scalar() == self.owner
        if leads:
            self._leads.set()
        else:
            self._leads.clear()
        return leads
