"""Summaries whose sentences say where they are from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from services.context.domain.sources import Citation, Source

DEFAULT_SENTENCES = 5


class Of(Enum):
    """Of what a summary is."""

    QUERY = "query"
    DOCUMENT = "document_id"
    SESSION = "session_id"
    SPACE = "space"


@dataclass(frozen=True, slots=True)
class Wanted:
    """See SummarizeRequest."""

    of: Of
    value: str
    filter: str = ""
    max_sentences: int = DEFAULT_SENTENCES
    model: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """See DigestSentence."""

    text: str
    citations: Sequence[Citation]


@dataclass(frozen=True, slots=True)
class Digest:
    """See SummarizeResponse."""

    sentences: Sequence[Sentence] = ()
    sources: Sequence[Source] = ()
    model: str = ""
    unsupported: int = 0
    partial: bool = False

    @property
    def found(self) -> bool:
        """Whether the sources hold what was asked for."""
        return bool(self.sentences)
