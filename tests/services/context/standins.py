"""Stand-ins for memory and ingest, behind the protocols by which context knows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from services.context.domain.conditions import Both, Not, equal
from services.context.domain.entries import (
    Entry,
    MemoryFacts,
    PassageFacts,
    memory_entry,
    passage_entry,
)
from services.context.domain.sources import Change, ChangedDocument, Kind, Source, Trust
from services.runtime.context import principal
from services.runtime.errors import NotFound, Unavailable


class _Feed:
    """Changes in a list; a word to whoever watches."""

    name = ""

    def __init__(self) -> None:
        self.log: list[Change] = []
        self.away = False
        self.held = False
        self._news = asyncio.Event()

    def require(self) -> None:
        if self.away:
            raise Unavailable("It is away.")

    def append(self, change: Change) -> None:
        self.log.append(replace(change, position=len(self.log) + 1))
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def changes(
        self, after: int, limit: int, tenant_id: str = ""
    ) -> tuple[Sequence[Change], int]:
        self.require()
        while self.held and not tenant_id and after < len(self.log):
            await asyncio.sleep(0.01)
        found = [
            each for each in self.log if each.position > after and tenant_id in ("", each.tenant_id)
        ]
        return found[:limit], len(self.log)

    async def watch(self) -> AsyncIterator[int]:
        while True:
            news = self._news
            yield len(self.log)
            await news.wait()


@dataclass
class _Document:
    tenant_id: str
    facts: PassageFacts
    texts: list[str] = field(default_factory=list)


class Documents(_Feed):
    """Stands for ingest."""

    name = "documents"

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, _Document] = {}

    def put(self, tenant: str, document: str, texts: Sequence[str], **facts: object) -> None:
        """Bring a document, or replace one."""
        known = self.kept.get(document)
        revision = known.facts.revision + 1 if known else 1
        made = PassageFacts(tenant, document, revision, **facts)  # type: ignore[arg-type]
        self.kept[document] = _Document(tenant, made, list(texts))
        its = equal("document_id", document)
        older = Both((its, Not(equal("revision", str(revision)))))
        self.append(Change(0, tenant, document=ChangedDocument(document, made), forgets=older))

    def remove(self, document: str) -> None:
        """Remove a document."""
        gone = self.kept.pop(document)
        self.append(Change(0, gone.tenant_id, forgets=equal("document_id", document)))

    async def entries(self, change: Change) -> AsyncIterator[Sequence[Entry]]:
        changed = change.document
        known = self.kept.get(changed.document_id) if changed else None
        if changed is None or known is None or known.facts.revision != changed.facts.revision:
            return
        yield [
            passage_entry(replace(changed.facts, passage_id=self._id(known, n), text=text))
            for n, text in enumerate(known.texts)
        ]

    def _id(self, document: _Document, number: int) -> str:
        return f"psg_{document.facts.document_id}_{document.facts.revision}_{number}"

    def _sources(self) -> dict[str, Source]:
        who = principal()
        return {
            self._id(each, n): Source(
                Kind.DOCUMENT,
                text,
                title=each.facts.title,
                document_id=each.facts.document_id,
                passage_id=self._id(each, n),
                collection=each.facts.collection,
                trust=Trust.OUTSIDE,
            )
            for each in self.kept.values()
            for n, text in enumerate(each.texts)
            if each.tenant_id == who.tenant_id
            and (not each.facts.private or each.facts.owner_id == who.user_id)
        }

    async def passages(self, passage_ids: Sequence[str]) -> Sequence[Source]:
        self.require()
        sources = self._sources()
        return [sources[each] for each in passage_ids if each in sources]

    async def document(self, document_id: str, limit: int) -> tuple[Sequence[Source], bool]:
        self.require()
        found = [each for each in self._sources().values() if each.document_id == document_id]
        if not found:
            raise NotFound.of("document")
        return found[:limit], len(found) > limit


class Memories(_Feed):
    """Stands for memory. Spaces are everyone's of a tenant, but a user's own."""

    name = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, MemoryFacts] = {}
        self.used: list[str] = []

    def put(self, tenant: str, memory: str, text: str, **facts: object) -> None:
        """Store a memory, or a new version of one."""
        at = len(self.log) + 1
        space = str(facts.pop("space", "shared/x"))
        old = self.kept.get(memory)
        made = MemoryFacts(tenant, memory, f"v{at}", space, text, since=at, **facts)  # type: ignore[arg-type]
        self.kept[memory] = made
        if old is not None:
            self.append(Change(0, tenant, (memory_entry(replace(old, until=at)),)))
        self.append(Change(0, tenant, (memory_entry(made),)))

    def erase(self, memory: str) -> None:
        """Forget a memory."""
        gone = self.kept.pop(memory)
        self.append(Change(0, gone.tenant_id, forgets=equal("memory_id", memory)))

    async def entries(self, change: Change) -> AsyncIterator[Sequence[Entry]]:
        if change.entries:
            yield change.entries

    async def spaces(self) -> Sequence[str]:
        self.require()
        who = principal()
        return sorted(
            {
                each.space
                for each in self.kept.values()
                if each.tenant_id == who.tenant_id
                and (not each.space.startswith("user/") or each.space == f"user/{who.user_id}")
            }
        )

    async def memories(
        self, space: str, memory_ids: Sequence[str], at: int | None
    ) -> Sequence[Source]:
        self.require()
        if space not in await self.spaces():
            return []
        tenant = principal().tenant_id
        return [
            self._source(self.kept[each])
            for each in memory_ids
            if each in self.kept and self.kept[each].tenant_id == tenant
        ]

    async def space(self, space: str, limit: int) -> tuple[Sequence[Source], bool]:
        self.require()
        if space not in await self.spaces():
            raise NotFound.of("space")
        tenant = principal().tenant_id
        found = [
            self._source(each)
            for each in self.kept.values()
            if each.space == space and each.tenant_id == tenant
        ]
        return found[:limit], len(found) > limit

    async def reinforce(self, memory_ids: Sequence[str]) -> None:
        self.require()
        self.used += memory_ids

    def _source(self, facts: MemoryFacts) -> Source:
        return Source(
            Kind.MEMORY,
            facts.text,
            title=facts.subject,
            memory_id=facts.memory_id,
            version_id=facts.version_id,
            space=facts.space,
            trust=Trust.OUTSIDE,
            confidential=facts.sensitivity == 3,
        )
