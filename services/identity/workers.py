"""What identity does by itself: replaces signing keys, and forgets what has expired."""

from __future__ import annotations

import asyncio

from services.identity import store
from services.identity.service.signing import SigningKeys
from services.identity.settings import IdentitySettings
from services.runtime import clock
from services.runtime.db import EVERYONE, Database
from services.runtime.replies import Replies

_PURGE_SECONDS = 60.0
_MAX_ROTATION_CHECK_SECONDS = 60.0
_EXPIRING = (
    store.revocations.purge,
    store.refresh_tokens.purge,
    store.login_failures.purge,
    store.api_keys.purge,
)


async def keep_rotating(signing: SigningKeys, settings: IdentitySettings) -> None:
    """Look several times within a key's lead whether the next one is due."""
    pause = min(_MAX_ROTATION_CHECK_SECONDS, settings.signing_key_lead_seconds / 4)
    while True:
        await signing.rotate()
        await asyncio.sleep(pause)


async def keep_purging(database: Database, replies: Replies) -> None:
    """Forget what has expired, now and then."""
    while True:
        await purge(database, replies)
        await asyncio.sleep(_PURGE_SECONDS)


async def purge(database: Database, replies: Replies) -> None:
    """Forget what has expired, in steps short enough that others get their turns between."""
    now = clock.now()
    for some in (*_EXPIRING, replies.purge):
        more = True
        while more:
            async with database.transaction(EVERYONE) as connection:
                more = await some(connection, now)
    async with database.transaction(EVERYONE) as connection:
        await store.login_failures.trim(connection)
