"""Which process carries which runs: each has a lease that it renews, and its runs are its own.

A run is carried by the process that accepted it. When that one ends without a word its lease runs
out, and whoever looks first takes its runs over. A process that was only away for a while finds at
its next write that a run is no longer its own, and lets go of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, text, update

from services.agents import store
from services.agents.domain import Run
from services.agents.tables import owners, runs
from services.runtime.db import EVERYONE, Connection, Database
from services.runtime.ids import new_id

RENEW_SECONDS = 0.5
LEASE_SECONDS = 2.0
_MAX_TAKEN = 500
_MOST_BETWEEN_LOOKS = 1.5
# Written out, for an index on some rows serves only a query that says it is about those.
_UNDER_WAY = text("agents_runs.state = 1")
_ORPHANS = select(runs.c.run_id).where(_UNDER_WAY, runs.c.owner.not_in(select(owners.c.owner)))


@dataclass(frozen=True, slots=True)
class Left:
    """A run that nobody carries, and who asked to cancel it, if anybody did."""

    run: Run
    cancel_by: str


class Leases:
    """The lease of this process, and a look at those of others."""

    def __init__(self, database: Database, instance: str) -> None:
        """Prepare one.

        Args:
            database: Where leases are kept; nobody else may keep this from a connection.
            instance: A name that only one process has at a time, so that whoever had it before is
                known to have ended; empty where there is none.
        """
        self._database = database
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
                await connection.execute(delete(owners).where(owners.c.instance == self._instance))
            await self._insert(connection)

    async def _insert(self, connection: Connection) -> None:
        await connection.execute(
            insert(owners).values(owner=self.owner, instance=self._instance, beat=self._beat)
        )

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
                lease = update(owners).where(owners.c.owner == self.owner)
                kept = await connection.execute(lease.values(beat=self._beat))
                if not kept.rowcount:  # taken for dead
                    await self._insert(connection)
        except BaseException:
            # While the database was away nobody could renew: all are given a whole lease again.
            self._seen.clear()
            raise

    async def take_over(self) -> list[Left]:
        """Runs of processes that ended; they are this one's from now on.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.read(EVERYONE) as connection:
            beats = {row.owner: row.beat for row in await connection.execute(select(owners))}
            dead = self._silent(beats)
            if not dead and not (await connection.execute(_ORPHANS.limit(1))).first():
                return []
        async with self._database.transaction(EVERYONE) as connection:
            for owner in dead:  # unless it renewed just now
                await connection.execute(
                    delete(owners).where(owners.c.owner == owner, owners.c.beat == beats[owner])
                )
            # Its own it knows to carry, even if somebody took it for dead a moment ago.
            some = _ORPHANS.where(runs.c.owner != self.owner).limit(_MAX_TAKEN)
            some = some.with_for_update(skip_locked=True)
            taken = await connection.execute(
                update(runs).where(runs.c.run_id.in_(some)).values(owner=self.owner).returning(runs)
            )
            return [Left(store.run_of(row), row.cancel_by or "") for row in taken]

    def _silent(self, beats: Mapping[str, int]) -> list[str]:
        """Processes that did not renew for a whole lease, as far as this one saw."""
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
        return [owner for owner, (_, since) in self._seen.items() if now - since > LEASE_SECONDS]

    async def own(self) -> list[Left]:
        """Every run under way that is this process's.

        Raises:
            Unavailable: The database cannot serve now.
        """
        query = select(runs).where(_UNDER_WAY, runs.c.owner == self.owner)
        async with self._database.read(EVERYONE) as connection:
            found = await connection.execute(query)
            return [Left(store.run_of(row), row.cancel_by or "") for row in found]

    async def cancelled(self) -> Sequence[tuple[str, str]]:
        """This process's runs that somebody asked to cancel, and who did.

        Raises:
            Unavailable: The database cannot serve now.
        """
        query = select(runs.c.run_id, runs.c.cancel_by).where(
            _UNDER_WAY, runs.c.owner == self.owner, runs.c.cancel_by.is_not(None)
        )
        async with self._database.read(EVERYONE) as connection:
            return [(row.run_id, row.cancel_by) for row in await connection.execute(query)]

    async def end(self) -> None:
        """Give the lease up; what is still under way is anybody's.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.transaction(EVERYONE) as connection:
            await connection.execute(delete(owners).where(owners.c.owner == self.owner))
