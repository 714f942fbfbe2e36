"""What interop does by itself: forgets responses that are old."""

from __future__ import annotations

import asyncio

from services.interop import store
from services.runtime import clock
from services.runtime.db import EVERYONE, Database

_PURGE_SECONDS = 60.0
_DAY = 24 * 3600 * clock.SECOND


async def keep_purging(database: Database, days: float) -> None:
    """Forget responses that are older than some days, now and then."""
    while True:
        await purge(database, days)
        await asyncio.sleep(_PURGE_SECONDS)


async def purge(database: Database, days: float) -> None:
    """Forget them, in steps short enough that others get their turns between."""
    more = True
    while more:
        async with database.transaction(EVERYONE) as connection:
            more = await store.purge(connection, clock.now() - int(days * _DAY))
