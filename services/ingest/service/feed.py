"""The feed of changes, for the index."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from services.ingest import store
from services.ingest.domain.documents import Document
from services.ingest.service.news import News
from services.runtime.context import Principal
from services.runtime.db import EVERYONE, Database

_DEFAULT_LIMIT = 200
FeedChange = tuple[int, str, str, Document | None]


class Feed:
    """The feed of this installation."""

    def __init__(self, database: Database, news: News) -> None:
        self._database = database
        self._news = news

    async def changes(
        self, who: Principal, after: int, limit: int
    ) -> tuple[Sequence[FeedChange], int]:
        """Changes after a position, oldest first, and the newest position there is."""
        whose = (who.tenant_id,) if who.tenant_id else EVERYONE
        async with self._database.read(whose) as connection:
            newest = await store.feed.newest(connection)
            found = await store.feed.after(
                connection, who.tenant_id, after, limit or _DEFAULT_LIMIT
            )
        return found, newest

    async def watch(self) -> AsyncGenerator[int, None]:
        """The newest position, again each time it rises."""
        last = -1
        async with self._news.of_feed() as news:
            while True:
                async with self._database.read(()) as connection:
                    newest = await store.feed.newest(connection)
                if newest > last:
                    yield newest
                    last = newest
                await news.wait(self._news.patience)
