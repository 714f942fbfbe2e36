"""What answers a query, among what the caller may read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.context.domain.asking import MOST_RANKED, Answer, Hit, Query
from services.context.domain.conditions import Both, Plain, of_tenant
from services.context.domain.entries import DOCUMENT, readable
from services.context.domain.ranking import Ranked, Signal, fuse
from services.context.domain.sources import Kind, Source
from services.context.filtering import parse
from services.context.index.backend import WORDS
from services.context.ports import Documents, Memories
from services.context.service.freshness import Freshness
from services.context.service.library import Library
from services.context.text import bm25
from services.context.text.highlights import highlights
from services.runtime import clock, log, paging
from services.runtime.context import Principal
from services.runtime.errors import InvalidRequest, PlexusError, Unavailable

_logger = log.get(__name__)
_READ_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry is read from."""

    kind: Kind
    id: str
    space: str = ""


class SearchService:
    """Ranks by the index, and reads what it found where it is kept."""

    def __init__(
        self, library: Library, freshness: Freshness, documents: Documents, memories: Memories
    ) -> None:
        self._library = library
        self._freshness = freshness
        self._documents = documents
        self._memories = memories

    async def search(self, who: Principal, query: Query, size: int, token: str = "") -> Answer:
        """Find what answers a query.

        Args:
            who: Who asks, who must be the caller of the current call.
            query: What is asked.
            size: How many hits a page has.
            token: Where the page begins, from the page before.

        Raises:
            InvalidRequest: The filter cannot be read, or the token is of another query.
            Unavailable: The index does not answer.
        """
        offset = _offset(query, token)
        condition = parse(query.filter)
        shelf = await self._library.serving()
        try:
            spaces, fresh = await asyncio.gather(
                self._spaces(query), self._freshness.wait(shelf, who.tenant_id)
            )
            at = clock.now() if query.as_of is None else query.as_of
            allowed = readable(
                who.user_id,
                spaces or (),
                at,
                past=query.as_of is not None,
                documents=query.documents,
            )
            wanted = of_tenant(who.tenant_id, Both((allowed, condition)))
            ranked, places = await self._rank(shelf, query, wanted)
        except PlexusError:
            # Another shelf may serve by now.
            self._library.forget()
            raise
        page = _Page(self, query, ranked[:MOST_RANKED], places)
        hits, reached, whole = await page.read(offset, size)
        more = reached < len(page.ranked)
        return Answer(
            hits,
            paging.encode((reached, query.digest)) if more else "",
            stale=not fresh or spaces is None or not whole,
            signals=(Signal.LEXICAL,),
        )

    async def _spaces(self, query: Query) -> Sequence[str] | None:
        """The spaces to look at; None where memory does not say."""
        try:
            mine = await self._memories.spaces()
        except PlexusError as error:
            _logger.info("memory_away", error=str(error))
            return None
        return [each for each in mine if each in query.spaces] if query.spaces else mine

    async def _rank(
        self, shelf: str, query: Query, wanted: Plain
    ) -> tuple[list[Ranked], Mapping[str, _Place]]:
        vector = bm25.query(query.text)
        if not vector.indices:
            return [], {}
        found = await self._library.backend.search(shelf, WORDS, vector, wanted, MOST_RANKED)
        places: dict[str, _Place] = {}
        ranking: list[tuple[str, float]] = []
        for each in found:
            place = _place(each.payload)
            places[place.id] = place
            ranking.append((place.id, each.score))
        return fuse({Signal.LEXICAL: ranking}), places

    async def read(
        self, places: Sequence[_Place], at: int | None
    ) -> tuple[Mapping[str, Source], bool]:
        """What is there of what was found, by id, and whether everyone could be asked.

        Raises:
            Unavailable: Nobody could.
        """
        asked: dict[tuple[Kind, str], list[str]] = {}
        for each in places:
            asked.setdefault((each.kind, each.space), []).append(each.id)
        calls = [
            self._documents.passages(ids)
            if kind is Kind.DOCUMENT
            else self._memories.memories(space, ids, at)
            for (kind, space), ids in asked.items()
        ]
        found: dict[str, Source] = {}
        failed: list[PlexusError] = []
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, PlexusError):
                failed.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                found.update((each.key, each) for each in result)
        if failed and len(failed) == len(calls):
            raise Unavailable("What was found cannot be read just now.", retry_after=1)
        return found, not failed


class _Page:
    """Ranked entries, read where they are kept until a page is full."""

    def __init__(
        self,
        service: SearchService,
        query: Query,
        ranked: Sequence[Ranked],
        places: Mapping[str, _Place],
    ) -> None:
        self._service = service
        self._query = query
        self.ranked = ranked
        self._places = places

    async def read(self, offset: int, size: int) -> tuple[list[Hit], int, bool]:
        """Hits from an offset on, the offset after them, and whether nobody was away."""
        hits: list[Hit] = []
        whole = True
        while offset < len(self.ranked) and len(hits) < size:
            # A few more than are wanted: some are gone.
            some = self.ranked[offset : offset + min(_READ_AT_ONCE, size - len(hits) + 4)]
            places = [self._places[each.key] for each in some]
            sources, all_read = await self._service.read(places, self._query.as_of)
            whole = whole and all_read
            for each in some:
                if len(hits) == size:
                    break
                offset += 1
                if (source := sources.get(each.key)) is not None:
                    marked = highlights(self._query.text, source.text)
                    hits.append(Hit(source, each.score, each.ranks, marked))
        return hits, offset, whole


def _offset(query: Query, token: str) -> int:
    decoded = paging.decode(token, int, str)
    if decoded is None:
        return 0
    offset, digest = decoded
    if digest != query.digest or not 0 <= offset <= MOST_RANKED:
        raise InvalidRequest.field("page_token", "must be a next_page_token of the same query")
    return offset


def _place(payload: Mapping[str, object]) -> _Place:
    if payload["kind"] == DOCUMENT:
        return _Place(Kind.DOCUMENT, str(payload["passage_id"]))
    return _Place(Kind.MEMORY, str(payload["memory_id"]), str(payload["space"]))
