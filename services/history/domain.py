"""Sessions and messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

TITLE_LENGTH = 80


class Author(IntEnum):
    """Who wrote a message; the numbers are the contract's."""

    USER = 1
    AGENT = 2


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. Times are microseconds."""

    session_id: str
    tenant_id: str
    user_id: str
    title: str
    message_count: int
    create_time: int
    update_time: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session; `place` counts from 1 within it."""

    message_id: str
    session_id: str
    author: Author
    text: str
    run_id: str
    partial: bool
    place: int
    create_time: int


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append, and on whose behalf."""

    tenant_id: str
    user_id: str
    message_id: str
    session_id: str
    author: Author
    text: str
    run_id: str
    partial: bool
    time: int

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text.encode())


def title_of(text: str) -> str:
    """A session's title: the beginning of its first message, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"
