"""What ingest does by itself: empties what nobody names, and forgets what has expired."""

from __future__ import annotations

import asyncio
from functools import partial

from services.ingest import store
from services.runtime import clock
from services.runtime.db import EVERYONE, Database
from services.runtime.replies import Replies

_PURGE_SECONDS = 5.0


async def keep_purging(database: Database, replies: Replies, living: str) -> None:
    """Forget what has expired, now and then."""
    while True:
        await purge(database, replies, living)
        await asyncio.sleep(_PURGE_SECONDS)


async def purge(database: Database, replies: Replies, living: str) -> None:
    """Forget it, in steps short enough that others get their turns between."""
    now = clock.now()
    for some in (
        partial(replies.purge, now=now),
        partial(store.uploads.purge, now=now),
        partial(store.heaps.purge, living=living),
    ):
        more = True
        while more:
            async with database.transaction(EVERYONE) as connection:
                more = await some(connection)
