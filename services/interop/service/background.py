"""Responses that go on by themselves: written by this process, whoever listens.

What the model says is committed in groups as it comes; who follows a response reads what is
committed, from the first piece on, and waits for news of more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from services.interop import store
from services.interop.domain.kept import CANCELLED, INTERRUPTED, Kept
from services.interop.domain.values import Asked, Broken, End, Finished, Piece, Text, ToolDelta
from services.interop.leases import Leases
from services.interop.service.shared import Models
from services.interop.settings import InteropSettings
from services.runtime import log
from services.runtime.context import acting_as, current, mesh_principal
from services.runtime.db import Connection, Database
from services.runtime.errors import PlexusError, ResourceExhausted, Unavailable
from services.runtime.leases import RENEW_SECONDS
from services.runtime.shared import Notices
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
# The topic of requests to cancel a response that another process writes.
_CANCELS = "interop.cancels"
# What another process writes is looked at this often; with news of it, as a precaution.
_POLL_SECONDS = 0.2
_NOTIFIED_POLL_SECONDS = 2.0
# How far a model may be ahead of the store, in characters; past it the model is made to wait.
_MAX_WAITING = 65_536
# How long the store may refuse what a model said before the response is given up.
_PATIENCE_SECONDS = 30.0
_AGAIN_SECONDS = 0.5
_ENDING_SECONDS = 2.0
# How many commits are read at once.
_PAGE = 200


class _Backlog:
    """What a model said and the store has not taken yet."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._size = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, piece: Piece) -> None:
        """Add a piece; waits first while there is no room."""
        await self._room.wait()
        self._pieces.append(piece)
        self._size += len(piece.text) if isinstance(piece, Text) else 0
        self._size += len(piece.arguments) if isinstance(piece, ToolDelta) else 0
        self._changed.set()
        if self._size >= _MAX_WAITING:
            self._room.clear()

    def close(self, _: object = None) -> None:
        """Nothing more comes."""
        self._closed = True
        self._changed.set()

    async def take(self) -> list[Piece]:
        """Everything that waits, as soon as there is any; empty at the end."""
        while not self._pieces and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        taken, self._pieces, self._size = self._pieces, [], 0
        self._room.set()
        return taken


class _Writing:
    """A response that this process writes."""

    def __init__(self) -> None:
        self.model: asyncio.Task[End] | None = None
        self.why: Broken | None = None

    def stop(self, why: Broken) -> None:
        """End it early, in this way, unless it is ending already."""
        self.why = self.why or why
        if self.model is not None:
            self.model.cancel()

    def end(self) -> End:
        """How it ended; of a model that is done."""
        if self.model is None or self.model.cancelled():
            return self.why or INTERRUPTED
        error = self.model.exception()
        if error is None:
            return self.model.result()
        if isinstance(error, PlexusError):
            return Broken(error.reason, error.message)
        _logger.error("response_failed", exc_info=error)
        return Broken("INTERNAL", "Something went wrong here. Its text so far is kept.")


class Background:
    """Writes responses, follows and cancels them, and ends those of processes that ended."""

    def __init__(
        self,
        database: Database,
        models: Models,
        leases: Leases,
        notices: Notices,
        tasks: Tasks,
        settings: InteropSettings,
    ) -> None:
        self._database = database
        self._models = models
        self._leases = leases
        self._notices = notices
        self._tasks = tasks
        self._settings = settings
        self._written: dict[str, _Writing] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._draining = False

    async def accept(self, kept: Kept, request: Asked) -> None:
        """Keep a response and begin to write it.

        Raises:
            ResourceExhausted: Too many are under way.
            Unavailable: This process is about to end, or the database cannot serve now.
        """
        if self._draining:
            raise Unavailable("This process is about to end. Try again.", retry_after=1)
        if len(self._written) >= self._settings.max_background:
            raise _too_many("max_background")
        # Known before it is kept: who finds one of this process's that is not here ends it.
        writing = self._written[kept.response_id] = _Writing()
        try:
            async with self._database.transaction((kept.tenant_id,)) as connection:
                # Replicas that accept in the same moment may pass the bound by one each.
                known = await store.under_way(connection, kept.tenant_id)
                if known >= self._settings.max_background_of_tenant:
                    raise _too_many("max_background_of_tenant")
                await store.insert_response(connection, kept, self._leases.owner)
        except BaseException:
            del self._written[kept.response_id]
            raise
        with acting_as(mesh_principal(kept.tenant_id, kept.user_id), current()):
            work = self._write(kept, request, writing)
            task = self._tasks.start(f"response {kept.response_id}", work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _write(self, kept: Kept, request: Asked, writing: _Writing) -> None:
        backlog = _Backlog()
        model = writing.model = asyncio.create_task(self._read(request, backlog))
        model.add_done_callback(backlog.close)
        if writing.why is not None:
            model.cancel()
        place, owner = 0, self._leases.owner
        try:
            while said := await backlog.take():
                place += 1
                await self._stored(
                    kept, partial(store.add, kept=kept, owner=owner, place=place, said=said)
                )
            await self._stored(kept, partial(store.end, kept=kept, owner=owner, how=writing.end()))
        except (PlexusError, TimeoutError) as error:
            # Whatever it lacks, it is ended by whoever looks for what nobody writes.
            _logger.warning("response_let_go", response=kept.response_id, error=repr(error))
        finally:
            model.cancel()
            await asyncio.wait({model})
            del self._written[kept.response_id]

    async def _read(self, request: Asked, backlog: _Backlog) -> End:
        async with aclosing(self._models.answer(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event
                await backlog.put(event)
        raise AssertionError("an answer ends in Finished or an error")

    async def _stored(self, kept: Kept, change: Callable[[Connection], Awaitable[None]]) -> None:
        """Commit a change that may be repeated, however often the store refuses for a while.

        Raises:
            Taken: The response is not this process's any more.
            TimeoutError: The store refused for too long.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                try:
                    async with self._database.transaction((kept.tenant_id,)) as connection:
                        await change(connection)
                except (Unavailable, ResourceExhausted) as error:
                    _logger.warning("store_refused", error=repr(error))
                    await asyncio.sleep(_AGAIN_SECONDS)
                else:
                    break
        await self._notices.publish(_topic(kept.response_id))

    async def follow(self, tenant_id: str, response_id: str) -> AsyncGenerator[Piece | End, None]:
        """What is committed of a response, past and to come, until its end.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        after = 0
        async with self._notices.subscribe(_topic(response_id)) as news:
            while True:
                async with self._database.read((tenant_id,)) as connection:
                    kept = await store.get(connection, tenant_id, response_id)
                    page = await store.list_pieces(connection, tenant_id, response_id, after, _PAGE)
                for place, said in page:
                    for each in said:
                        yield each
                    after = place
                if len(page) == _PAGE:
                    continue
                if kept.end is not None:
                    yield kept.end
                    return
                working = self._notices.working
                await news.wait(_NOTIFIED_POLL_SECONDS if working else _POLL_SECONDS)

    async def cancel(self, kept: Kept) -> None:
        """Cancel a response if it is under way; returns when it has ended.

        Raises:
            Unavailable: The database cannot serve now.
        """
        if kept.end is not None:
            return
        writing = self._written.get(kept.response_id)
        if writing is not None:
            writing.stop(CANCELLED)
        else:
            async with self._database.transaction((kept.tenant_id,)) as connection:
                await store.ask_cancel(connection, kept.tenant_id, kept.response_id)
            await self._notices.publish(_CANCELS)
        async with aclosing(self.follow(kept.tenant_id, kept.response_id)) as happening:
            async for _ in happening:
                pass

    async def drain(self, seconds: float) -> None:
        """Take no more, let those under way finish for some seconds, then cut them off."""
        self._draining = True
        if self._work:
            await asyncio.wait(self._work, timeout=seconds)
        for writing in self._written.values():
            writing.stop(INTERRUPTED)
        if self._work:
            await asyncio.wait(self._work, timeout=_ENDING_SECONDS)

    async def keep_lease(self) -> None:
        """Renew this process's lease, obey cancels, and end what others left behind."""
        async with self._notices.subscribe(_CANCELS) as asked:
            while True:
                try:
                    await self._leases.renew()
                    for response_id in await self._leases.cancelled():
                        if response_id in self._written:
                            self._written[response_id].stop(CANCELLED)
                    for response_id in await self._leases.end_lost(self._written):
                        _logger.warning("response_ended_for_another", response=response_id)
                        await self._notices.publish(_topic(response_id))
                except (PlexusError, TimeoutError) as error:
                    # Soon again: a longer pause would cost the lease.
                    _logger.warning("lease_not_renewed", error=repr(error))
                await asked.wait(RENEW_SECONDS)


def _too_many(limit: str) -> ResourceExhausted:
    return ResourceExhausted(
        "Too many responses are under way in the background. Try again.",
        metadata={"limit": limit},
        retry_after=1,
    )


def _topic(response_id: str) -> str:
    return f"interop.responses.{response_id}"
