"""What ingest does by itself: empties what nobody names, and forgets what has expired."""

from __future__ import annotations

import asyncio
from functools import partial

from services.ingest import store
from services.ingest.service.sources import about
from services.runtime import clock, log
from services.runtime.crypto import MasterKey
from services.runtime.db import EVERYONE, Database
from services.runtime.replies import Replies

_logger = log.get(__name__)
_PURGE_SECONDS = 5.0
_SEAL_SECONDS = 3600.0


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


async def seal_again(database: Database, master_key: MasterKey) -> None:
    """Seal what is secret of sources with the newest master key, now and then."""
    while True:
        async with database.transaction(EVERYONE) as connection:
            changed = 0
            for source_id, old in await store.sources.sealed(connection):
                new = master_key.enclosed_again(old, about(source_id))
                if new is not None:
                    await store.sources.seal_again(connection, source_id, old, new)
                    changed += 1
        if changed:
            _logger.info("secrets_sealed_again", sources=changed)
        await asyncio.sleep(_SEAL_SECONDS)
