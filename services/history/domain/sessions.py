"""Sessions and messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


def after(session: Session | None, new: NewMessage) -> Session:
    """A session when a message was added, which begins it if it is not there."""
    if session is not None:
        count = session.message_count + 1
        return replace(session, message_count=count, update_time=new.time)
    return Session(
        session_id=new.session_id,
        tenant_id=new.tenant_id,
        user_id=new.user_id,
        title=title_of(new.text),
        message_count=1,
        create_time=new.time,
        update_time=new.time,
    )


def message_of(new: NewMessage, place: int) -> Message:
    """A message in its place."""
    return Message(
        message_id=new.message_id,
        session_id=new.session_id,
        author=new.author,
        text=new.text,
        run_id=new.run_id,
        partial=new.partial,
        place=place,
        create_time=new.time,
    )


def title_of(text: str) -> str:
    """A session's title: the beginning of its first message, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"
