"""What was found or said, as it is shown and cited; and what changed, as it is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from services.context.domain.conditions import Condition
from services.context.domain.entries import Entry, PassageFacts


class Kind(IntEnum):
    """What a source is, by the contract's numbers."""

    DOCUMENT = 1
    MEMORY = 2
    MESSAGE = 3


class Trust(IntEnum):
    """How far words are to be trusted, by the contract's numbers."""

    UNKNOWN = 0
    AUTHOR = 1
    USER = 2
    OUTSIDE = 3


@dataclass(frozen=True, slots=True)
class Source:
    """Something that can be cited; see the contract."""

    kind: Kind
    text: str
    title: str = ""
    document_id: str = ""
    passage_id: str = ""
    page: int = 0
    headings: Sequence[str] = ()
    start: int = 0
    end: int = 0
    memory_id: str = ""
    version_id: str = ""
    space: str = ""
    message_id: str = ""
    uri: str = ""
    collection: str = ""
    time: int = 0
    trust: Trust = Trust.OUTSIDE
    confidential: bool = False

    @property
    def key(self) -> str:
        """What tells it from others."""
        return self.passage_id or self.memory_id or self.message_id


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a feed, as it is indexed.

    Attributes:
        position: Its place in the feed.
        entries: What is there now, where the feed says it itself.
        document: Whose passages are to be asked for, else.
        forgets: What is to be taken out when those are in.
    """

    position: int
    tenant_id: str
    entries: Sequence[Entry] = ()
    document: ChangedDocument | None = None
    forgets: Condition | None = None


@dataclass(frozen=True, slots=True)
class ChangedDocument:
    """A document with new passages, or new facts about it.

    Attributes:
        facts: What is known of all its passages.
    """

    document_id: str
    facts: PassageFacts


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text, in code points."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Citation:
    """A part of a text, and what stands behind it; see the contract."""

    cited_in: Span
    source_index: int
    span: Span
    quote: str

    def moved(self, by: int) -> Citation:
        """The same for a text that begins elsewhere."""
        inside = Span(self.cited_in.start + by, self.cited_in.end + by)
        return replace(self, cited_in=inside)
