"""Search by meaning: the vectors of what is in the index, and of queries."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence

from services.context.domain.conditions import Plain
from services.context.domain.entries import Entry, Found
from services.context.ports import Feed, Models, Superseded
from services.context.service.library import Library, space_of
from services.runtime import log
from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import Internal, PlexusError

_logger = log.get(__name__)
_QUERY_SECONDS = 3.0
_CHANGES = 50
_BATCH = 32
_CHARACTERS = 8_000
_ATTEMPTS = 3
_REMEMBERED = 2_000


class Meaning:
    """Ranks by vectors, for tenants that have a model of embeddings."""

    def __init__(self, library: Library, models: Models, *, on: bool) -> None:
        self._library = library
        self._models = models
        self._on = on

    @property
    def on(self) -> bool:
        """Whether anything is ranked by meaning here."""
        return self._on

    async def rank(
        self, shelf: str, text: str, wanted: Plain, limit: int
    ) -> tuple[str, Sequence[Found]]:
        """What is near to a query, and the model that says so; empty where there is none.

        It is no reason for search by words to fail: where the model does not answer in time,
        there is none.
        """
        if not self._on:
            return "", ()
        try:
            async with asyncio.timeout(_QUERY_SECONDS):
                model = await self._models.embedding_model()
                if not model:
                    return "", ()
                using = space_of(model)
                (vector,) = await self._models.embed(model, [text])
                if model not in await self._library.models(shelf):
                    return "", ()
                found = await self._library.backend.search(shelf, using, vector, wanted, limit)
                return model, found
        except (PlexusError, TimeoutError) as error:
            _logger.info("meaning_away", error=str(error))
            return "", ()


class Vectors:
    """Has a tenant's model read what the index has taken in, behind what takes it in by its words.

    Words are never kept waiting for it; what a model does not read in a few attempts has no vector,
    until the index is made anew.
    """

    def __init__(self, library: Library, feed: Feed, models: Models) -> None:
        self._library = library
        self._feed = feed
        self._models = models
        # A memory comes again when its time ends, with the same text.
        self._known: OrderedDict[tuple[str, str, str], Sequence[float]] = OrderedDict()

    async def take(self, shelf: str) -> bool:
        """Take in some changes; False where there are none left.

        Raises:
            PlexusError: The feed or the index did not answer.
        """
        name = self._feed.name
        own = f"{name}.vectors"
        positions = await self._library.positions(shelf, [name, own])
        changes, _ = await self._feed.changes(positions[own], _CHANGES)
        # What is not in yet could be given no vector.
        ready = [each for each in changes if each.position <= positions[name]]
        for change in ready:
            with contextlib.suppress(Superseded):  # it comes again
                async for entries in self._feed.entries(change):
                    for at in range(0, len(entries), _BATCH):
                        await self._give(shelf, change.tenant_id, entries[at : at + _BATCH])
        if ready:
            await self._library.mark(shelf, own, ready[-1].position)
        return bool(ready)

    async def _give(self, shelf: str, tenant_id: str, entries: Sequence[Entry]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with acting_as(mesh_principal(tenant_id)):
                    model = await self._models.embedding_model()
                    if not model:
                        return
                    vectors = await self._read(tenant_id, model, entries)
                break
            # A model may also give too few of them.
            except (PlexusError, ValueError) as error:
                _logger.warning("vectors_failed", tenant_id=tenant_id, error=str(error))
                if attempt == _ATTEMPTS:
                    return
                await asyncio.sleep(attempt)
        try:
            if await self._library.add_model(shelf, model, len(next(iter(vectors.values())))):
                await self._library.backend.set_vectors(shelf, space_of(model), vectors)
        except Internal as error:
            # Of another length than before, for one: that must not keep all others waiting.
            _logger.error("vectors_refused", tenant_id=tenant_id, model=model, error=str(error))

    async def _read(
        self, tenant_id: str, model: str, entries: Sequence[Entry]
    ) -> dict[str, Sequence[float]]:
        texts = {each.entry_id: each.text[:_CHARACTERS] for each in entries}
        # Two tenants may mean two models by one name.
        new = [
            text
            for text in dict.fromkeys(texts.values())
            if (tenant_id, model, text) not in self._known
        ]
        if new:
            found = await self._models.embed(model, new)
            for text, vector in zip(new, found, strict=True):
                self._known[tenant_id, model, text] = vector
        vectors = {
            entry_id: self._known[tenant_id, model, text] for entry_id, text in texts.items()
        }
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return vectors
