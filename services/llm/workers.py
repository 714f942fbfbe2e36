"""What llm does by itself: forgets what has expired, and seals keys with the newest master key."""

from __future__ import annotations

import asyncio

from services.llm import store
from services.llm.service.backends import about_key
from services.runtime import clock, log
from services.runtime.crypto import MasterKey
from services.runtime.db import EVERYONE, Database
from services.runtime.replies import Replies

_logger = log.get(__name__)
_PURGE_SECONDS = 60.0
_SEAL_SECONDS = 3600.0
# The sums of calls stay; this is how long each can be looked at by itself.
_CALLS_KEPT = 90 * 24 * 3600 * clock.SECOND


async def keep_purging(database: Database, replies: Replies) -> None:
    """Forget what has expired, now and then."""
    while True:
        await purge(database, replies)
        await asyncio.sleep(_PURGE_SECONDS)


async def purge(database: Database, replies: Replies) -> None:
    """Forget what has expired, in steps short enough that others get their turns between."""
    now = clock.now()
    for some, before in (
        (replies.purge, now),
        (store.answers.purge, now),
        (store.calls.purge, now - _CALLS_KEPT),
    ):
        more = True
        while more:
            async with database.transaction(EVERYONE) as connection:
                more = await some(connection, before)


async def seal_again(database: Database, master_key: MasterKey) -> None:
    """Seal providers' keys with the newest master key, now and then."""
    while True:
        async with database.transaction(EVERYONE) as connection:
            changed = 0
            for provider_id, old in await store.providers.sealed(connection):
                new = master_key.enclosed_again(old, about_key(provider_id))
                if new is not None:
                    await store.providers.seal_again(connection, provider_id, old, new)
                    changed += 1
        if changed:
            _logger.info("keys_sealed_again", keys=changed)
        await asyncio.sleep(_SEAL_SECONDS)
