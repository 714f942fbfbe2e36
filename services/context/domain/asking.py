"""What is asked of search, and what it answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.context.domain.ranking import Rank, Signal
from services.context.domain.sources import Source, Span

MOST_RANKED = 1_000


@dataclass(frozen=True, slots=True)
class Query:
    """See SearchRequest.

    Attributes:
        documents: Whether documents are looked at: they are of no space.
    """

    text: str
    filter: str = ""
    spaces: Sequence[str] = ()
    documents: bool = True
    signals: Sequence[Signal] = ()
    as_of: int | None = None
    rerank_model: str = ""

    @property
    def digest(self) -> str:
        """Names the query, so that a page token of another one is known."""
        asked = [
            *(self.text, self.filter, list(self.spaces), self.documents),
            *([int(each) for each in self.signals], self.as_of, self.rerank_model),
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Hit:
    """See SearchHit."""

    source: Source
    score: float
    ranks: Sequence[Rank]
    highlights: Sequence[Span] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """See SearchResponse."""

    hits: Sequence[Hit]
    next_page_token: str = ""
    stale: bool = False
    signals: Sequence[Signal] = ()
    embedding_model: str = ""
