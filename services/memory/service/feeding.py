"""The changes of `main`, for whoever makes an index of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.memory.domain.values import Memory, Span
from services.memory.service.reading import View
from services.memory.service.writing import FEED_TOPIC, Desk
from services.memory.store import spaces, spans, versions
from services.memory.store.shared import Place
from services.runtime.context import Principal
from services.runtime.db import EVERYONE, Connection, Whose
from services.runtime.errors import NotFound

_LIMIT = 200
_PAGE_BYTES = 2_000_000
_POLL_SECONDS = 0.5
_NOTIFIED_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Turned:
    """A change, with what the memory says; None where it is no more."""

    span: Span
    memory: Memory | None


class Feeding:
    """Reads the feed, and tells when there is more of it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def changes(self, who: Principal, after: int, limit: int) -> tuple[list[Turned], int]:
        """The changes behind a position, oldest first, and the newest position there is."""
        whose: Whose = (who.tenant_id,) if who.tenant_id else EVERYONE
        async with self._desk.database.read(whose) as connection:
            newest = await spans.position(connection)
            found = await spans.after(
                connection, who.tenant_id, who.user_id, after, limit or _LIMIT
            )
            return await self._read(connection, found), newest

    async def _read(self, connection: Connection, found: list[Span]) -> list[Turned]:
        """Changes with their contents, as many as fit one reply."""
        by_place: dict[Place, list[str]] = {}
        for span in found:
            by_place.setdefault(Place(span.tenant_id, span.space), []).append(span.version_id)
        sizes: dict[str, int] = {}
        for place, ids in by_place.items():
            sizes |= await versions.sizes(connection, place, set(ids))
        total = 0
        fitting: list[Span] = []
        for span in found:
            total += sizes.get(span.version_id, 0)
            if total > _PAGE_BYTES and fitting:
                break
            fitting.append(span)
        read = {}
        for place, ids in by_place.items():
            # Of what is erased nothing is told, and its space may be gone already.
            wanted = set(ids) & {span.version_id for span in fitting if not span.erased}
            read.update(await self._memories(connection, place, wanted))
        return [
            Turned(span, None if span.erased else read.get((span.tenant_id, span.version_id)))
            for span in fitting
        ]

    async def _memories(
        self, connection: Connection, place: Place, version_ids: set[str]
    ) -> dict[tuple[str, str], Memory]:
        found = list((await versions.get(connection, place, version_ids)).values())
        if not found:
            return {}
        try:
            space = await spaces.get(connection, place, "")
        except NotFound:
            # It is being erased: what is left of it comes once more, as erased.
            return {}
        # What says otherwise is read where somebody reads the memory.
        view = View(connection, place, space, None, self._desk.known)
        return {
            (place.tenant_id, each.version.version_id): each for each in await view.dressed(found)
        }

    async def watch(self) -> AsyncGenerator[int, None]:
        """The newest position, at once and whenever it rose."""
        told = -1
        async with self._desk.notices.subscribe(FEED_TOPIC) as news:
            while True:
                # A position is no tenant's.
                async with self._desk.database.read(()) as connection:
                    newest = await spans.position(connection)
                if newest > told:
                    told = newest
                    yield newest
                working = self._desk.notices.working
                await news.wait(_NOTIFIED_POLL_SECONDS if working else _POLL_SECONDS)
