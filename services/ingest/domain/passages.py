"""Passages: what a document is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What a passage is; the numbers are the contract's."""

    TEXT = 1
    TABLE = 2
    CODE = 3


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document's text: characters `start` to `end`, which is not part of it.

    Its text is those characters. Before the rows of a table that goes on from another passage there
    are, besides, the names of its columns and a line break.
    """

    text: str
    kind: Kind
    headings: tuple[str, ...]
    page: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A passage that is kept, in its place in a document."""

    passage_id: str
    document_id: str
    place: int
    passage: Passage
