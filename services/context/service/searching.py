"""What answers a query, among what the caller may read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.context.domain.asking import MOST_RANKED, Answer, Hit, Query
from services.context.domain.conditions import Both, Plain, of_tenant
from services.context.domain.entries import DOCUMENT, Found, readable
from services.context.domain.ranking import Ranked, Signal, fuse
from services.context.domain.sources import Kind, Source
from services.context.filtering import parse
from services.context.index.backend import WORDS
from services.context.ports import Documents, Memories, Models
from services.context.service import reranking
from services.context.service.freshness import Freshness
from services.context.service.library import Library
from services.context.service.meaning import Meaning
from services.context.text import bm25
from services.context.text.highlights import highlights
from services.runtime import clock, log, paging
from services.runtime.context import Principal
from services.runtime.errors import InvalidRequest, PlexusError, Unavailable

_logger = log.get(__name__)
_READ_AT_ONCE = 100
_OWN_MODELS = "offline/"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry is read from."""

    kind: Kind
    id: str
    space: str = ""


@dataclass
class _Ranking:
    """What was found, in an order, and by what."""

    ranked: list[Ranked]
    places: Mapping[str, _Place]
    signals: list[Signal]
    model: str


class SearchService:
    """Ranks by the index, and reads what it found where it is kept."""

    def __init__(
        self,
        library: Library,
        freshness: Freshness,
        documents: Documents,
        memories: Memories,
        meaning: Meaning,
        models: Models,
    ) -> None:
        self._meaning = meaning
        self._models = models
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
            depth = self._depth(query, offset + size)
            ranking = await self._rank(shelf, query, wanted, depth)
        except PlexusError:
            # Another shelf may serve by now.
            self._library.forget()
            raise
        if query.rerank_model and (not query.signals or Signal.RERANK in query.signals):
            await self._rerank(query, ranking)
        page = _Page(self, query, ranking.ranked[:MOST_RANKED], ranking.places)
        hits, reached, whole = await page.read(offset, size)
        more = reached < len(page.ranked) or len(page.ranked) == depth < MOST_RANKED
        return Answer(
            hits,
            paging.encode((reached, query.digest)) if more else "",
            stale=not fresh or spaces is None or not whole,
            signals=ranking.signals,
            embedding_model=ranking.model,
        )

    async def _spaces(self, query: Query) -> Sequence[str] | None:
        """The spaces to look at; None where memory does not say."""
        try:
            mine = await self._memories.spaces()
        except PlexusError as error:
            _logger.info("memory_away", error=str(error))
            return None
        return [each for each in mine if each in query.spaces] if query.spaces else mine

    def _depth(self, query: Query, wanted: int) -> int:
        """How many to rank for a page: one ranking begins the same however long it is."""
        if self._meaning.on and _wants(query, Signal.SEMANTIC):
            return MOST_RANKED
        return min(MOST_RANKED, 2 * wanted + reranking.MOST)

    async def _rank(self, shelf: str, query: Query, wanted: Plain, depth: int) -> _Ranking:
        words, (model, meaning) = await asyncio.gather(
            self._by_words(shelf, query, wanted, depth), self._by_meaning(shelf, query, wanted)
        )
        found = {Signal.LEXICAL: words} | ({Signal.SEMANTIC: meaning} if model else {})
        if not _wants(query, Signal.LEXICAL):
            del found[Signal.LEXICAL]
        places = {
            entry.entry_id: _place(entry.payload) for each in found.values() for entry in each
        }
        rankings = {
            signal: [(places[entry.entry_id].id, entry.score) for entry in each]
            for signal, each in found.items()
        }
        return _Ranking(
            fuse(rankings), {each.id: each for each in places.values()}, [*found], model
        )

    async def _by_words(
        self, shelf: str, query: Query, wanted: Plain, depth: int
    ) -> Sequence[Found]:
        vector = bm25.query(query.text)
        if not vector.indices or not _wants(query, Signal.LEXICAL):
            return ()
        return await self._library.backend.search(shelf, WORDS, vector, wanted, depth)

    async def _by_meaning(
        self, shelf: str, query: Query, wanted: Plain
    ) -> tuple[str, Sequence[Found]]:
        if not _wants(query, Signal.SEMANTIC):
            return "", ()
        return await self._meaning.rank(shelf, query.text, wanted, MOST_RANKED)

    async def _rerank(self, query: Query, ranking: _Ranking) -> None:
        """Have the best ranked by a model; where it fails they stay as they are."""
        best = ranking.ranked[: reranking.MOST]
        sources, _ = await self.read([ranking.places[each.key] for each in best], query.as_of)
        own = query.rerank_model.startswith(_OWN_MODELS)
        told = [
            each
            for each in best
            if each.key in sources and (own or not sources[each.key].confidential)
        ]
        if not told:
            return
        found = await reranking.rerank(
            self._models,
            query.rerank_model,
            query.text,
            told,
            [sources[each.key] for each in told],
        )
        if found is not None:
            keys = {each.key for each in found}
            ranking.ranked = [*found, *(each for each in ranking.ranked if each.key not in keys)]
            ranking.signals.append(Signal.RERANK)

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


def _wants(query: Query, signal: Signal) -> bool:
    """Whether a query asks for a signal; what is ranked once more is ranked by words first."""
    asked = set(query.signals)
    return not asked or signal in asked or (signal is Signal.LEXICAL and asked == {Signal.RERANK})


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
