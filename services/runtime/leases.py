"""Which process of a module still lives: each has a lease that it renews.

When a process ends without a word its lease runs out, and what it had under way is anybody's. A
process that was only away for a while finds that others took it for dead, and takes a new lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, insert, select, update

from services.runtime.db import EVERYONE, Connection, Database
from services.runtime.ids import new_id

RENEW_SECONDS = 0.5
LEASE_SECONDS = 2.0
_MOST_BETWEEN_LOOKS = 1.5


def owners_table(module: str, metadata: MetaData) -> Table:
    """A module's table of the processes that live."""
    return Table(
        f"{module}_owners",
        metadata,
        Column("owner", String(200), primary_key=True),
        Column("instance", String(128), nullable=False),
        Column("beat", BigInteger, nullable=False),
    )


class Lease:
    """The lease of this process, and a look at those of others."""

    def __init__(self, database: Database, table: Table, instance: str) -> None:
        """Prepare one.

        Args:
            database: Where leases are kept; nobody else may keep this from a connection.
            table: From `owners_table`.
            instance: A name that only one process has at a time, so that whoever had it before is
                known to have ended; empty where there is none.
        """
        self._database = database
        self._table = table
        self._instance = instance
        self.owner = f"{instance}/{new_id('own')}"
        self._beat = 0
        # What was last seen of others, and when by this process's own clock: hosts' clocks differ.
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked = 0.0

    async def begin(self) -> None:
        """Take a lease, and declare the one before under this name ended.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.transaction(EVERYONE) as connection:
            if self._instance:
                same = self._table.c.instance == self._instance
                await connection.execute(delete(self._table).where(same))
            await self._insert(connection)

    async def _insert(self, connection: Connection) -> None:
        values = {"owner": self.owner, "instance": self._instance, "beat": self._beat}
        await connection.execute(insert(self._table), values)

    async def renew(self) -> None:
        """Renew the lease.

        Raises:
            Unavailable: The database cannot serve now.
            TimeoutError: It takes too long.
        """
        self._beat += 1
        try:
            async with (
                asyncio.timeout(RENEW_SECONDS * 2),
                self._database.transaction(EVERYONE) as connection,
            ):
                lease = update(self._table).where(self._table.c.owner == self.owner)
                kept = await connection.execute(lease.values(beat=self._beat))
                if not kept.rowcount:  # taken for dead
                    await self._insert(connection)
        except BaseException:
            # While the database was away nobody could renew: all are given a whole lease again.
            self._seen.clear()
            raise

    async def silent(self, connection: Connection) -> dict[str, int]:
        """Processes that did not renew for a whole lease, as far as this one saw, and their beats.

        It must be asked more often than every second and a half to find any.
        """
        beats = {row.owner: row.beat for row in await connection.execute(select(self._table))}
        now = asyncio.get_running_loop().time()
        if now - self._looked > _MOST_BETWEEN_LOOKS:
            # This one was held up itself, and so were the others, perhaps.
            self._seen.clear()
        self._looked = now
        self._seen = {
            owner: known if (known := self._seen.get(owner)) and known[0] == beat else (beat, now)
            for owner, beat in beats.items()
            if owner != self.owner
        }
        return {
            owner: beat
            for owner, (beat, since) in self._seen.items()
            if now - since > LEASE_SECONDS
        }

    async def bury(self, connection: Connection, silent: Mapping[str, int]) -> None:
        """Forget processes, except those that renewed just now."""
        for owner, beat in silent.items():
            same = (self._table.c.owner == owner, self._table.c.beat == beat)
            await connection.execute(delete(self._table).where(*same))

    async def end(self) -> None:
        """Give the lease up; what is still under way is anybody's.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.transaction(EVERYONE) as connection:
            await connection.execute(delete(self._table).where(self._table.c.owner == self.owner))
