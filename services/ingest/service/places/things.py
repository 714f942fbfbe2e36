"""Things that a source has, and what goes wrong there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass


class LookFailed(Exception):
    """A source cannot be looked at, or not to its end. The text is for a person."""


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that may become a document.

    Attributes:
        key: Its name at the source.
        mark: Which state of it: with the mark that it had before, it is as before.
        uri: Where it comes from.
        title: What it is called; empty is found in it.
        file_name: The file's name.
        media_type: What the source says that it is.
        pieces: Gives its bytes.
    """

    key: str
    mark: str
    uri: str
    title: str
    file_name: str
    media_type: str
    pieces: Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to here all is brought: the next look goes on from it."""

    text: str


Seen = Thing | Cursor
