"""What can be done with history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy.exc import IntegrityError

from services.history import store
from services.history.domain.sessions import Message, NewMessage, Session
from services.history.window import BYTES_PER_TOKEN, fit, within
from services.runtime import paging, tokens
from services.runtime.db import Database
from services.runtime.errors import NotFound
from services.runtime.groups import GroupWriter

_MAX_WINDOW = 1_000
_MAX_WINDOW_BYTES = 8_000_000
_MAX_PAGE_BYTES = 2_000_000


class HistoryService:
    """Appends, lists, and finds what fits a window."""

    def __init__(
        self,
        database: Database,
        writer: GroupWriter[NewMessage, Message],
        touched: Callable[[str, str], None] | None = None,
    ) -> None:
        """Prepare one.

        Args:
            database: History's.
            writer: Appends messages.
            touched: Told of each tenant's session that a message was added to.
        """
        self._database = database
        self._writer = writer
        self._touched = touched

    async def append(self, message: NewMessage) -> Message:
        """Keep a message; repeating its id returns the one that is kept.

        Raises:
            NotFound: The session or the message is another tenant's.
        """
        try:
            kept = await self._writer.submit(message)
        except IntegrityError:
            # The id is taken by what row security hides.
            raise NotFound.of("session") from None
        if self._touched is not None:
            self._touched(message.tenant_id, message.session_id)
        return kept

    async def session(self, tenant_id: str, session_id: str) -> Session:
        """One session.

        Raises:
            NotFound: This tenant has none of this id.
        """
        async with self._database.read((tenant_id,)) as connection:
            return await store.get_session(connection, tenant_id, session_id)

    async def sessions(self, tenant_id: str, size: int, token: str) -> tuple[list[Session], str]:
        """A page of sessions, newest first, and the token of the next.

        Raises:
            InvalidRequest: The token is not one of this list.
        """
        limit = paging.page_size(size)
        before = paging.decode(token, int, str)
        async with self._database.read((tenant_id,)) as connection:
            found = await store.list_sessions(connection, tenant_id, before, limit + 1)
        return paging.cut(found, limit, lambda each: (each.create_time, each.session_id))

    async def messages(
        self, tenant_id: str, session_id: str, size: int, token: str
    ) -> tuple[list[Message], str]:
        """A page of a session's messages, oldest first, and the token of the next.

        Raises:
            NotFound: This tenant has no such session.
            InvalidRequest: The token is not one of this list.
        """
        limit = paging.page_size(size)
        after = paging.decode(token, int)
        start = after[0] if after else 0
        async with self._database.read((tenant_id,)) as connection:
            await store.get_session(connection, tenant_id, session_id)
            sizes = await store.list_sizes(
                connection, tenant_id, session_id, after=start, limit=limit + 1
            )
            count = within(sizes[:limit], _MAX_PAGE_BYTES)
            if not count:
                return [], ""
            last = sizes[count - 1][0]
            page = await store.get_messages(connection, tenant_id, session_id, start + 1, last)
        return page, paging.encode((last,)) if count < len(sizes) else ""

    async def window(
        self, tenant_id: str, session_id: str, max_tokens: int
    ) -> tuple[list[Message], int]:
        """The newest messages that fit, oldest first, and how many older ones do not.

        Raises:
            NotFound: This tenant has no such session.
        """
        async with self._database.read((tenant_id,)) as connection:
            session = await store.get_session(connection, tenant_id, session_id)
            sizes = await store.newest_sizes(connection, tenant_id, session_id, _MAX_WINDOW)
            # No text is longer than this in that many tokens, so none but these are looked at.
            count = within(sizes, min(max_tokens * BYTES_PER_TOKEN, _MAX_WINDOW_BYTES))
            if not count:
                return [], 0
            found = await store.get_messages(
                connection, tenant_id, session_id, sizes[count - 1][0], sizes[0][0]
            )
        if sum(size for _, size in sizes[:count]) > max_tokens:
            found = await asyncio.to_thread(fit, found[::-1], max_tokens, tokens.count)
        return found, session.message_count - len(found)
