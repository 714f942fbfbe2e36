"""Summaries, and where the consolidation of a session stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

SECTIONS = ("overview", "decisions", "open_questions", "details")
KEEP_MESSAGES = 6
# What writes summaries where no language model can.
EXTRACTIVE = "extractive"


class State(IntEnum):
    """Where a consolidation stands; the numbers are the contract's."""

    NONE = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a summary, and the messages that say it."""

    text: str
    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What was said, in short."""

    overview: tuple[Line, ...] = ()
    decisions: tuple[Line, ...] = ()
    open_questions: tuple[Line, ...] = ()
    details: tuple[Line, ...] = ()
    model: str = ""

    def lines(self) -> Iterator[Line]:
        """All of them, in order."""
        for name in SECTIONS:
            yield from self.section(name)

    def section(self, name: str) -> tuple[Line, ...]:
        """The lines of one section."""
        found: tuple[Line, ...] = getattr(self, name)
        return found

    def packed(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": self.model,
            **{
                name: [[line.text, *line.message_ids] for line in self.section(name)]
                for name in SECTIONS
            },
        }

    @classmethod
    def unpacked(cls, data: Mapping[str, Any]) -> Summary:
        """Out of `packed`."""
        return cls(
            model=data["model"],
            **{
                name: tuple(Line(text, tuple(ids)) for text, *ids in data[name])
                for name in SECTIONS
            },
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """What of a message is not in the summary."""

    message_id: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact to propose to memory, and the message that says it."""

    text: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Consolidation:
    """The consolidation of a session. Times are microseconds.

    Attributes:
        through_place: The place of the last message that was taken in; 0 where none was.
        attempts: How often it was taken up since it last got on.
    """

    session_id: str
    tenant_id: str
    user_id: str
    state: State = State.NONE
    model: str = ""
    keep_messages: int = KEEP_MESSAGES
    summary: Summary = Summary()
    through_place: int = 0
    through_message_id: str = ""
    tokens_before: int = 0
    tokens_after: int = 0
    dropped: Sequence[Dropped] = ()
    proposed_count: int = 0
    update_time: int = 0
    failure: str = ""
    attempts: int = 0
