"""What can be done with summaries of sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.history import store, summary_store
from services.history.domain.sessions import Message
from services.history.domain.summary import KEEP_MESSAGES, Consolidation, State, Summary
from services.history.reading import Reading, room_of
from services.history.window import within
from services.runtime import clock
from services.runtime.db import Connection, Database

# What a summary that is made for one call reads without a model, in bytes and in messages.
_MAX_READ_BYTES = 200_000
_MAX_READ = 1_000
BYTES_PER_TOKEN = 4


class SummaryService:
    """Asks for consolidations, and tells how they stand; `workers.Consolidator` makes them."""

    def __init__(self, database: Database, reading: Reading, wake: Callable[[], None]) -> None:
        """Prepare one.

        Args:
            database: History's.
            reading: How messages are read.
            wake: Tells the workers of this process that there is something to do.
        """
        self._database = database
        self._reading = reading
        self._wake = wake

    async def consolidate(
        self, tenant_id: str, session_id: str, model: str, keep: int = KEEP_MESSAGES
    ) -> Consolidation:
        """Begin to bring a summary up to date, if there is anything new and none is under way.

        Raises:
            NotFound: This tenant has no such session.
        """
        async with self._database.transaction((tenant_id,)) as connection:
            found = await _standing(connection, tenant_id, session_id)
            if found.state is State.RUNNING:
                return found
            session = await store.get_session(connection, tenant_id, session_id)
            new = session.message_count - keep > found.through_place
            if not new and found.state is not State.NONE:
                return found
            wanted = replace(
                found,
                state=State.RUNNING if new else State.DONE,
                model=model,
                keep_messages=keep,
                update_time=clock.now(),
            )
            await summary_store.request(connection, wanted)
            # Another may have asked in the same moment.
            found = await _standing(connection, tenant_id, session_id)
        self._wake()
        return found

    async def consolidation(self, tenant_id: str, session_id: str) -> Consolidation:
        """How a session's consolidation stands.

        Raises:
            NotFound: This tenant has no such session.
        """
        async with self._database.read((tenant_id,)) as connection:
            return await _standing(connection, tenant_id, session_id)

    async def consolidate_if_long(self, tenant_id: str, session_id: str, tokens: int) -> None:
        """Begin where more than so many tokens are new; a session that is not there has none."""
        async with self._database.read((tenant_id,)) as connection:
            found = await summary_store.find(connection, tenant_id, session_id)
            if found and found.state is State.RUNNING:
                return
            if found and found.state is State.FAILED:
                session = await store.get_session(connection, tenant_id, session_id)
                if session.update_time < found.update_time:
                    return
            after = found.through_place if found else 0
            sizes = await store.list_sizes(
                connection, tenant_id, session_id, after=after, limit=_MAX_READ
            )
        old = sizes[:-KEEP_MESSAGES] if len(sizes) < _MAX_READ else sizes
        if old and sum(size for _, size in old) > tokens * BYTES_PER_TOKEN:
            await self.consolidate(tenant_id, session_id, "")

    async def summarize(
        self, tenant_id: str, session_id: str, newest: int, model: str
    ) -> tuple[Summary, int]:
        """A summary of the newest messages, 0 for all that can be read, and how many were not.

        Raises:
            NotFound: This tenant has no such session; UNKNOWN_MODEL: no such model.
        """
        async with self._database.read((tenant_id,)) as connection:
            session = await store.get_session(connection, tenant_id, session_id)
        reader = await self._reading.reader(model)
        room = room_of(reader, _MAX_READ_BYTES)
        messages: list[Message] = []
        async with self._database.read((tenant_id,)) as connection:
            limit = newest or _MAX_READ
            sizes = await store.newest_sizes(connection, tenant_id, session_id, limit)
            if count := within(sizes, room):
                messages = await store.get_messages(
                    connection, tenant_id, session_id, sizes[count - 1][0], sizes[0][0]
                )
        taking = await self._reading.take_in(reader, Summary(), (), messages)
        wanted = min(newest or session.message_count, session.message_count)
        return taking.summary, max(0, wanted - len(messages))

    async def before(
        self, tenant_id: str, session_id: str, message_id: str
    ) -> tuple[Summary, str] | None:
        """The newest summary that took in nothing from a message on, and its last message.

        Raises:
            NotFound: This tenant has no such session, or the session no such message.
        """
        async with self._database.read((tenant_id,)) as connection:
            await store.get_session(connection, tenant_id, session_id)
            place = None
            if message_id:
                place = await summary_store.place_of(connection, tenant_id, session_id, message_id)
            return await summary_store.version_before(connection, tenant_id, session_id, place)


async def _standing(connection: Connection, tenant_id: str, session_id: str) -> Consolidation:
    found = await summary_store.find(connection, tenant_id, session_id)
    if found is not None:
        return found
    session = await store.get_session(connection, tenant_id, session_id)
    return Consolidation(session_id, tenant_id, session.user_id)
