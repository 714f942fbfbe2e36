"""Which process carries which runs: whoever accepted one carries it.

When a process ends, whoever looks first takes its runs over. A process that was only away for a
while finds at its next write that a run is no longer its own, and lets go of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text, update

from services.agents import store
from services.agents.domain import Run
from services.agents.tables import owners, runs
from services.runtime.db import EVERYONE, Database
from services.runtime.leases import Lease

_MAX_TAKEN = 500
# Written out, for an index on some rows serves only a query that says it is about those.
_UNDER_WAY = text("agents_runs.state = 1")
_ORPHANS = select(runs.c.run_id).where(_UNDER_WAY, runs.c.owner.not_in(select(owners.c.owner)))


@dataclass(frozen=True, slots=True)
class Left:
    """A run that nobody carries, and who asked to cancel it, if anybody did."""

    run: Run
    cancel_by: str


class Leases(Lease):
    """The lease of this process, and the runs of those that ended."""

    def __init__(self, database: Database, instance: str) -> None:
        super().__init__(database, owners, instance)
        self._database = database

    async def take_over(self) -> list[Left]:
        """Runs of processes that ended; they are this one's from now on.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.read(EVERYONE) as connection:
            dead = await self.silent(connection)
            if not dead and not (await connection.execute(_ORPHANS.limit(1))).first():
                return []
        async with self._database.transaction(EVERYONE) as connection:
            await self.bury(connection, dead)
            # Its own it knows to carry, even if somebody took it for dead a moment ago.
            some = _ORPHANS.where(runs.c.owner != self.owner).limit(_MAX_TAKEN)
            some = some.with_for_update(skip_locked=True)
            taken = await connection.execute(
                update(runs).where(runs.c.run_id.in_(some)).values(owner=self.owner).returning(runs)
            )
            return [Left(store.run_of(row), row.cancel_by or "") for row in taken]

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
