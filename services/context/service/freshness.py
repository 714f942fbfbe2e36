"""Whether the index has taken in what a caller's tenant stored before the call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.context.ports import Feed
from services.context.service.library import Library
from services.runtime import log
from services.runtime.errors import PlexusError

_logger = log.get(__name__)
_WAIT_SECONDS = 0.5
_ASK_SECONDS = 1.0
_LOOK_SECONDS = 0.03
# A tenant with more than this outstanding is waited for as a whole.
_LOOKED_AT = 50


class Freshness:
    """Asks the feeds, and waits a little for those that follow them."""

    def __init__(self, library: Library, feeds: Sequence[Feed]) -> None:
        self._library = library
        self._feeds = feeds

    async def wait(self, shelf: str, tenant_id: str) -> bool:
        """Wait until a shelf has what the tenant stored before now; False where that takes longer.

        Raises:
            Unavailable: The index does not answer.
        """
        names = [feed.name for feed in self._feeds]
        positions = await self._library.positions(shelf, names)
        needed = await asyncio.gather(
            *(self._needed(feed, positions[feed.name], tenant_id) for feed in self._feeds)
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + _WAIT_SECONDS
        while True:
            behind = any(
                need is not None and positions[feed.name] < need
                for feed, need in zip(self._feeds, needed, strict=True)
            )
            if not behind or loop.time() > until:
                return not behind and None not in needed
            await self._library.wait_moved(_LOOK_SECONDS)
            positions = await self._library.positions(shelf, names)

    async def _needed(self, feed: Feed, after: int, tenant_id: str) -> int | None:
        """The position that must be in; None where the feed does not say."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                changes, newest = await feed.changes(after, _LOOKED_AT, tenant_id)
        except (PlexusError, TimeoutError) as error:
            _logger.info("feed_away", feed=feed.name, error=str(error))
            return None
        if len(changes) < _LOOKED_AT:
            return changes[-1].position if changes else 0
        return newest
