"""What can be done with history."""

from __future__ import annotations

import asyncio

from services.history import store
from services.history.domain import Message, NewMessage, Session
from services.history.window import BYTES_PER_TOKEN, fit
from services.runtime import paging, tokens
from services.runtime.db import Database
from services.runtime.groups import GroupWriter

_MAX_WINDOW = 1_000
_WINDOW_PAGE = 100
_MAX_PAGE_CHARACTERS = 2_000_000


class HistoryService:
    """Appends, lists, and finds what fits a window."""

    def __init__(self, database: Database, writer: GroupWriter[NewMessage, Message]) -> None:
        self._database = database
        self._writer = writer

    async def append(self, message: NewMessage) -> Message:
        """Keep a message; repeating its id returns the one that is kept.

        Raises:
            NotFound: The session or the message is another tenant's.
        """
        return await self._writer.submit(message)

    async def session(self, tenant_id: str, session_id: str) -> Session:
        """One session.

        Raises:
            NotFound: This tenant has none of this id.
        """
        async with self._database.read() as connection:
            return await store.get_session(connection, tenant_id, session_id)

    async def sessions(self, tenant_id: str, size: int, token: str) -> tuple[list[Session], str]:
        """A page of sessions, newest first, and the token of the next.

        Raises:
            InvalidRequest: The token is not one of this list.
        """
        limit = paging.page_size(size)
        before = paging.decode(token, int, str)
        async with self._database.read() as connection:
            found = await store.list_sessions(connection, tenant_id, before, limit + 1)
        if len(found) <= limit:
            return found, ""
        last = found[limit - 1]
        return found[:limit], paging.encode((last.create_time, last.session_id))

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
        async with self._database.read() as connection:
            await store.get_session(connection, tenant_id, session_id)
            found = await store.list_messages(
                connection, tenant_id, session_id, after[0] if after else 0, limit + 1
            )
        page: list[Message] = []
        characters = 0
        for message in found[:limit]:
            characters += len(message.text)
            if page and characters > _MAX_PAGE_CHARACTERS:
                break
            page.append(message)
        return page, paging.encode((page[-1].place,)) if len(page) < len(found) else ""

    async def window(
        self, tenant_id: str, session_id: str, max_tokens: int
    ) -> tuple[list[Message], int]:
        """The newest messages that fit, oldest first, and how many older ones do not.

        Raises:
            NotFound: This tenant has no such session.
        """
        candidates: list[Message] = []
        size = 0
        async with self._database.read() as connection:
            session = await store.get_session(connection, tenant_id, session_id)
            before = session.message_count + 1
            while before > 1 and len(candidates) < _MAX_WINDOW:
                page = await store.list_newest(
                    connection, tenant_id, session_id, before, _WINDOW_PAGE
                )
                candidates += page
                before = page[-1].place
                size += sum(tokens.at_most(message.text) for message in page)
                if size > max_tokens * BYTES_PER_TOKEN:
                    break
        if size <= max_tokens:
            chosen = candidates[::-1]
        else:
            chosen = await asyncio.to_thread(fit, candidates, max_tokens, tokens.count)
        return chosen, session.message_count - len(chosen)
