"""Stand-ins for other modules, behind the protocols by which context knows them."""

from __future__ import annotations

import asyncio
import zlib
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
from services.context.ports import Line, Window, Written
from services.context.text.words import terms
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

    def _source(self, document: _Document, number: int) -> Source | None:
        who = principal()
        facts = document.facts
        if document.tenant_id != who.tenant_id or number >= len(document.texts):
            return None
        if facts.private and facts.owner_id != who.user_id:
            return None
        return Source(
            Kind.DOCUMENT,
            document.texts[number],
            title=facts.title,
            document_id=facts.document_id,
            passage_id=self._id(document, number),
            collection=facts.collection,
            trust=Trust.OUTSIDE,
        )

    async def passages(self, passage_ids: Sequence[str]) -> Sequence[Source]:
        self.require()
        found = []
        for each in passage_ids:
            name, revision, number = each.removeprefix("psg_").rsplit("_", 2)
            document = self.kept.get(name)
            if document is not None and document.facts.revision == int(revision):
                found.append(self._source(document, int(number)))
        return [each for each in found if each is not None]

    async def document(self, document_id: str, limit: int) -> tuple[Sequence[Source], bool]:
        self.require()
        known = self.kept.get(document_id)
        count = len(known.texts) if known else 0
        found = [self._source(known, n) for n in range(count)] if known else []
        told = [each for each in found if each is not None]
        if not told:
            raise NotFound.of("document")
        return told[:limit], len(told) > limit


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


class History:
    """Stands for history."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], list[Line]] = {}
        self.summary = ""

    def say(self, tenant: str, session: str, text: str, *, by_agent: bool = False) -> None:
        """Say something in a session."""
        lines = self.lines.setdefault((tenant, session), [])
        source = Source(
            Kind.MESSAGE,
            text,
            message_id=f"msg_{session}_{len(lines)}",
            trust=Trust.OUTSIDE if by_agent else Trust.USER,
        )
        lines.append(Line(source, by_agent))

    async def window(self, session_id: str, max_tokens: int) -> Window:
        lines = self.lines.get((principal().tenant_id, session_id))
        if lines is None:
            raise NotFound.of("session")
        return Window(lines)

    async def summary_before(self, session_id: str, message_id: str) -> str:
        if not self.summary:
            raise Unavailable("It cannot do this yet.")
        return self.summary


class Models:
    """Stands for llm: it writes what it is told to."""

    def __init__(self) -> None:
        self.model = "offline/extractive"
        self.text = ""
        self.asked: list[tuple[str, Sequence[str], str]] = []
        self.away = False
        self.embedding = ""

    async def write(
        self,
        instructions: str,
        sources: Sequence[str],
        question: str,
        *,
        model: str = "",
        task_class: str = "",
        json: bool = False,
        max_tokens: int = 2_000,
    ) -> Written:
        self.asked.append((instructions, sources, question))
        if self.away:
            raise Unavailable("It is away.", reason="MODEL_UNAVAILABLE")
        return Written(model or self.model, self.text)

    async def embedding_model(self) -> str:
        return self.embedding

    async def embed(self, model: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """No meaning: how often each of 16 classes of words is there."""
        found = []
        for text in texts:
            vector = [0.001] * 16
            for term in terms(text):
                vector[zlib.crc32(term.encode()) % 16] += 1
            found.append(vector)
        return found
