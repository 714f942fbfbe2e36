"""Which process writes which responses, and the end of those whose process has ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import or_, select, update

from services.interop.domain.kept import CANCELLED, INTERRUPTED
from services.interop.store import UNDER_WAY, ending
from services.interop.tables import owners, responses
from services.runtime.db import EVERYONE, Database
from services.runtime.leases import Lease

_MAX_TAKEN = 500


class Leases(Lease):
    """The lease of this process, and the responses of those that ended."""

    def __init__(self, database: Database, instance: str) -> None:
        super().__init__(database, owners, instance)
        self._database = database

    async def end_lost(self, carried: Collection[str]) -> Sequence[str]:
        """End responses that nobody writes any more; their ids.

        Args:
            carried: What this process writes: a response is in it before it is kept.

        Raises:
            Unavailable: The database cannot serve now.
        """
        free = responses.c.owner.not_in(select(owners.c.owner))
        async with self._database.read(EVERYONE) as connection:
            dead = await self.silent(connection)
            anybodys = or_(free, responses.c.owner.in_([self.owner, *dead]))
            query = select(responses.c.response_id).where(UNDER_WAY, anybodys)
            found = (await connection.execute(query.limit(_MAX_TAKEN + len(carried)))).scalars()
            lost = [each for each in found if each not in carried]
        if not dead and not lost:
            return []
        async with self._database.transaction(EVERYONE) as connection:
            await self.bury(connection, dead)
            gone: list[str] = []
            for asked, how in ((True, CANCELLED), (False, INTERRUPTED)):
                ended = await connection.execute(
                    update(responses)
                    .where(
                        responses.c.response_id.in_(lost),
                        responses.c.cancel_asked.is_(asked),
                        or_(free, responses.c.owner == self.owner),
                        UNDER_WAY,
                    )
                    .values(owner=self.owner, **ending(how))
                    .returning(responses.c.response_id)
                )
                gone += ended.scalars()
            return gone

    async def cancelled(self) -> Sequence[str]:
        """This process's responses that somebody asked to cancel.

        Raises:
            Unavailable: The database cannot serve now.
        """
        query = select(responses.c.response_id).where(
            UNDER_WAY, responses.c.owner == self.owner, responses.c.cancel_asked
        )
        async with self._database.read(EVERYONE) as connection:
            return (await connection.execute(query)).scalars().all()
