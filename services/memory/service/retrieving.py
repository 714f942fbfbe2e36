"""Finding memories: what an index found, and what no index has, by words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.memory.domain.ranking import rank
from services.memory.domain.values import MAIN, At, Memory, Version, Wanted, memory_of, version_of
from services.memory.ports import Found, Hit, Search
from services.memory.service.browsing import Browsing
from services.memory.service.reading import View
from services.memory.store import spans, versions
from services.runtime import log, paging
from services.runtime.context import Principal
from services.runtime.errors import InvalidRequest, PlexusError

_logger = log.get(__name__)
_MAX_RANKED = 1_000
_PAGE = 100
_NEWEST = 200
_MOST = 2_000
_MOST_BYTES = 4_000_000
_LONG = 50_000
_PATIENCE_SECONDS = 5.0
# Reciprocal rank fusion (Cormack, Clarke, Büttcher, 2009).
_FUSION = 60
# How much of a score the strength decides.
_STRENGTH = 0.2


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A memory that was found, and how."""

    memory: Memory
    score: float
    lexical: bool
    semantic: bool


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A page of what was found.

    Attributes:
        found: The best first.
        token: For the next page; empty on the last.
        commit_id: What was read.
        degraded: Whether no index could be asked.
    """

    found: list[Retrieved]
    token: str
    commit_id: str
    degraded: bool


class _Ranked(NamedTuple):
    version: Version
    score: float
    lexical: bool
    semantic: bool


class Retrieving:
    """Answers queries, and tells what is strongest."""

    def __init__(self, browsing: Browsing, search: Search) -> None:
        self._browsing = browsing
        self._search = search

    async def retrieve(
        self, who: Principal, name: str, query: str, wanted: Wanted, at: At, size: int, token: str
    ) -> Retrieval:
        """A page of the memories that answer a query; without one, of the strongest.

        Raises:
            NotFound: There is no such space for the caller, or no such point.
            InvalidRequest: The token is not one of this list.
        """
        limit = paging.page_size(size)
        seen = paging.decode(token, int, str)
        begin = seen[0] if seen else 0
        if not 0 <= begin <= _MAX_RANKED:
            raise InvalidRequest.field("page_token", "must be a next_page_token of this list")
        if seen and seen[1]:
            at = At(commit_id=seen[1])
        found: Found | None = None
        if query.strip():
            # Asked while no transaction is open: another module may take its time.
            async with self._browsing.view(who, name, at) as view:
                space, moment = view.place.space, _as_of(view, at)
            found = await self._asked(query, space, moment)
        async with self._browsing.view(who, name, at) as view:
            if query.strip():
                ranked = await _answering(view, query, found)
            else:
                ranked = await _strongest(view)
            ranked = [each for each in ranked if wanted.takes(each.version.content)]
            ranked = ranked[:_MAX_RANKED]
            page = ranked[begin : begin + limit]
            held = [(each.version.memory_id, each.version.version_id) for each in page]
            page = page[: await view.fitting(held)]
            dressed = await view.dressed([each.version for each in page])
            end = begin + len(page)
            return Retrieval(
                [
                    Retrieved(memory, each.score, each.lexical, each.semantic)
                    for memory, each in zip(dressed, page, strict=True)
                ],
                paging.encode((end, view.commit_id)) if page and end < len(ranked) else "",
                view.commit_id,
                bool(query.strip()) and found is None,
            )

    async def _asked(self, query: str, space: str, moment: int | None) -> Found | None:
        """What the index found, all that it ranks; None where it cannot be asked."""
        hits: list[Hit] = []
        stale, token = False, ""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while len(hits) < _MAX_RANKED:
                    page = await self._search.memories(query, space, moment, _PAGE, token)
                    hits += page.hits
                    stale, token = stale or page.stale, page.token
                    if not token:
                        break
        except (PlexusError, TimeoutError) as error:
            _logger.warning("search_is_away", error=repr(error))
            return None
        return Found(tuple(hits), stale)


def _as_of(view: View, at: At) -> int | None:
    """The moment that an index is asked about; None is now."""
    if view.commit is None or (at.time is None and not at.commit_id and not at.tag):
        return None
    return view.commit.create_time if view.commit.branch == MAIN else None


async def _answering(view: View, query: str, found: Found | None) -> list[_Ranked]:
    """What answers a query, the best first."""
    fresh = await _apart(view, found)
    here = await view.find([hit.memory_id for hit in found.hits]) if found else {}
    hits = [
        hit
        for hit in (found.hits if found else ())
        if here.get(hit.memory_id) == hit.version_id and hit.memory_id not in fresh
    ]
    read = await versions.get(view.connection, view.place, [hit.version_id for hit in hits])
    texts = {memory: _text(version) for memory, version in fresh.items()}
    long = sum(map(len, texts.values())) > _LONG
    scores = await asyncio.to_thread(rank, query, texts) if long else rank(query, texts)
    ranked = [
        _Ranked(read[hit.version_id], 1 / (_FUSION + place), hit.lexical, hit.semantic)
        for place, hit in enumerate(hits, 1)
        if hit.version_id in read
    ]
    ranked += [
        _Ranked(fresh[memory], 1 / (_FUSION + place), lexical=True, semantic=False)
        for place, memory in enumerate(scores, 1)
    ]
    return await _by_strength(view, ranked)


async def _apart(view: View, found: Found | None) -> dict[str, Version]:
    """What the index does not have, or not so: by what the revision is."""
    if found is None:
        return await _bounded(view, await _lately(view, _MOST))
    if view.commit is not None and view.commit.branch != MAIN:
        main = await view.beside_main()
        changes = await main.diff(view, "", _MOST)
        held = {memory_of(each.key): version_of(each.after) for each in changes if each.after}
        return await _bounded(view, held)
    if not found.stale:
        return {}
    newest = await spans.newest(view.connection, view.place, _NEWEST)
    return await _bounded(view, await view.find({span.memory_id for span in newest}))


async def _lately(view: View, most: int) -> dict[str, str]:
    """The memories that were used last, of those that are there, the latest first."""
    ids = await versions.lately(view.connection, view.place, most)
    found = await view.find(ids)
    return {memory: found[memory] for memory in ids if memory in found}


async def _bounded(view: View, held: dict[str, str]) -> dict[str, Version]:
    """As many of these as may be in memory at a time."""
    sizes = await versions.sizes(view.connection, view.place, held.values())
    total = 0
    taken = {}
    for memory, version in held.items():
        total += sizes.get(version, 0)
        if total > _MOST_BYTES:
            break
        taken[memory] = version
    read = await versions.get(view.connection, view.place, taken.values())
    return {memory: read[version] for memory, version in taken.items() if version in read}


async def _strongest(view: View) -> list[_Ranked]:
    """The strongest, of those that were used last."""
    found = await _bounded(view, await _lately(view, _MAX_RANKED))
    strengths = await _strengths(view, found.values())
    ranked = [
        _Ranked(version, strengths[memory], lexical=False, semantic=False)
        for memory, version in found.items()
    ]
    return _sorted(ranked)


async def _by_strength(view: View, ranked: Sequence[_Ranked]) -> list[_Ranked]:
    strengths = await _strengths(view, [each.version for each in ranked])
    return _sorted(
        each._replace(
            score=each.score * (1 - _STRENGTH + _STRENGTH * strengths[each.version.memory_id])
        )
        for each in ranked
    )


async def _strengths(view: View, found: Iterable[Version]) -> dict[str, float]:
    read = list(found)
    known = await versions.strengths(
        view.connection, view.place.tenant_id, [each.memory_id for each in read]
    )
    return {each.memory_id: view.strength(each, known) for each in read}


def _sorted(ranked: Iterable[_Ranked]) -> list[_Ranked]:
    return sorted(ranked, key=lambda each: (-each.score, each.version.memory_id))


def _text(version: Version) -> str:
    content = version.content
    return f"{content.subject} {content.text}"
