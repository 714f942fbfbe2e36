"""Responses of models: with the conversation before them, and kept when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from services.interop import store
from services.interop.domain.items import Item
from services.interop.domain.kept import (
    INTERRUPTED,
    LEFT,
    OWN_PREFIX,
    Kept,
    grown,
    no_previous,
    own_id,
)
from services.interop.domain.responses import going_on
from services.interop.domain.values import (
    Asked,
    AskedResponse,
    Broken,
    End,
    Finished,
    Piece,
    Started,
)
from services.interop.service.shared import Models
from services.runtime import clock, log
from services.runtime.context import Principal
from services.runtime.db import Database
from services.runtime.errors import PlexusError
from services.runtime.ids import new_id

_logger = log.get(__name__)
_ENDING_SECONDS = 2.0


class Keeper:
    """Asks models, and keeps what they answer."""

    def __init__(self, database: Database, models: Models, owner: str) -> None:
        self._database = database
        self._models = models
        self._owner = owner
        self._work: set[asyncio.Task[None]] = set()
        # Why an answer ends whose caller is gone.
        self._gone = LEFT

    async def new(self, who: Principal, asked: AskedResponse) -> tuple[Kept, Asked]:
        """A response that is not kept yet, and what its model is asked: all that was said before.

        Raises:
            NotFound: The one that it goes on from, or one before that, is not there.
            InvalidRequest: The conversation is too long.
        """
        before: list[Item] = []
        previous = None
        if asked.previous:
            async with self._database.read((who.tenant_id,)) as connection:
                chain = await store.chain(connection, who.tenant_id, own_id(asked.previous))
            if not chain or chain[0][0].previous_id:
                raise no_previous(asked.previous)
            previous = chain[-1][0]
            before = [item for kept, said in chain for item in kept.said(said)]
        depth, size = grown(previous, asked.items)
        kept = Kept(
            response_id=new_id(OWN_PREFIX),
            tenant_id=who.tenant_id,
            user_id=who.user_id,
            model=asked.asked.model,
            previous_id=previous.response_id if previous else "",
            items=asked.items,
            echo={**asked.echo, "store": asked.store},
            depth=depth,
            size=size,
            create_time=clock.now(),
        )
        return kept, going_on(asked, before)

    async def answer(self, kept: Kept, request: Asked) -> AsyncGenerator[Piece | End, None]:
        """An answer as it is written; its end comes when it is committed.

        Closing the iterator stops the model, and what it said is kept as cancelled.

        Raises:
            PlexusError: Nobody answers, the answer broke off, or it cannot be kept.
        """
        said: list[Piece] = []
        try:
            async with aclosing(self._models.answer(request)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        kept = replace(kept, end=event)
                        break
                    if isinstance(event, Started):
                        kept = replace(kept, model=event.model)
                    said.append(event)
                    yield event
        except PlexusError as error:
            if not said:
                raise
            broken = Broken(error.reason, error.message)
            await asyncio.shield(self._keep(replace(kept, end=broken), said))
            yield broken
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if said:
                self._keep(replace(kept, end=self._gone), said)
            raise
        assert kept.end is not None, "an answer ends in Finished or an error"
        await asyncio.shield(self._keep(kept, said))
        yield kept.end

    def _keep(self, kept: Kept, said: Sequence[Piece]) -> asyncio.Task[None]:
        """Keep a response that has ended, also where whoever asked has gone."""
        keeping = asyncio.create_task(self._insert(kept, said))
        self._work.add(keeping)
        keeping.add_done_callback(self._kept)
        return keeping

    async def _insert(self, kept: Kept, said: Sequence[Piece]) -> None:
        if kept.echo["store"]:
            async with self._database.transaction((kept.tenant_id,)) as connection:
                await store.insert_response(connection, kept, self._owner, said)

    def _kept(self, keeping: asyncio.Task[None]) -> None:
        self._work.discard(keeping)
        if not keeping.cancelled() and (error := keeping.exception()) is not None:
            _logger.warning("response_not_kept", error=repr(error))

    async def get(self, tenant_id: str, response_id: str) -> tuple[Kept, list[Piece]]:
        """A response as it stands, and what was answered so far.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        async with self._database.read((tenant_id,)) as connection:
            kept = await store.get(connection, tenant_id, response_id)
            pages = await store.list_pieces(connection, tenant_id, response_id)
        return kept, [piece for _, said in pages for piece in said]

    async def remove(self, tenant_id: str, response_id: str) -> None:
        """Forget a response.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        async with self._database.transaction((tenant_id,)) as connection:
            await store.remove(connection, tenant_id, response_id)

    async def drain(self, _: float) -> None:
        """Whoever is gone from now on is so because this process ends."""
        self._gone = INTERRUPTED

    async def settle(self) -> None:
        """Wait until everything is kept, at most for a moment."""
        if self._work:
            await asyncio.wait(self._work, timeout=_ENDING_SECONDS)
