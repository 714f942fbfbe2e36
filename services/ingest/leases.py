"""Which process reads which documents and looks at which sources."""

from __future__ import annotations

from services.ingest.tables import owners
from services.runtime.db import EVERYONE, Database
from services.runtime.leases import Lease


class Leases(Lease):
    """The lease of this process."""

    def __init__(self, database: Database, instance: str) -> None:
        super().__init__(database, owners, instance)
        self._database = database

    async def bury_silent(self) -> None:
        """Forget processes that ended without a word; what they had under way is anybody's.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.read(EVERYONE) as connection:
            dead = await self.silent(connection)
        if dead:
            async with self._database.transaction(EVERYONE) as connection:
                await self.bury(connection, dead)
