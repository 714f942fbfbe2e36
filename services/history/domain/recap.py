"""How a summary takes in more messages without losing anything silently.

Whoever wrote the new summary, what the old one and the messages have of numbers, names, dates,
decisions and open questions is looked for in it; what it lacks is quoted, and what does not fit is
listed as dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from services.history.domain.extract import LONGEST, Fact, Kind, facts, pieces, words
from services.history.domain.sessions import Author, Message
from services.history.domain.summary import SECTIONS, Dropped, Line, Summary

# About 1,500 tokens, in bytes of UTF-8: what each section may take, and all of them.
MAX_BYTES = 5_000
_SHARES = {"overview": 1_300, "decisions": 1_200, "open_questions": 800}
MAX_DROPPED = 200
MAX_SENTENCES = 10
_MAX_DROPPED_CHARACTERS = 200_000
_MAX_IDS = 8
# A line says the same as a sentence when it has at least this part of the sentence's words.
_SAME = 0.5
_EVADES = re.compile(
    r"\b(?:(?:do not|don['’]t|did not|didn['’]t) (?:know|have|find|see)|not sure|unsure|cannot"
    r"|can['’]t|unable|no idea|unclear|nothing (?:is|was) (?:known|said))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Needed:
    """A sentence with facts, where it goes when a summary lacks them, and whose it is."""

    line: Line
    facts: frozenset[Fact]

    @property
    def section(self) -> str:
        kinds = {fact.kind.value for fact in self.facts}
        return next(each for each in ("open_questions", "decisions", "details") if each in kinds)


def merge(
    previous: Summary,
    dropped: Sequence[Dropped],
    messages: Sequence[Message],
    draft: Summary,
    *,
    last: str = "",
    answered: Iterable[Line] = (),
) -> tuple[Summary, tuple[Dropped, ...]]:
    """A summary that has taken in messages, and what is not in it.

    Args:
        previous: The summary until now.
        dropped: What was not in it.
        messages: What is taken in, oldest first.
        draft: What a model, or an extractive summary, made of both.
        last: The message that the previous summary took in last.
        answered: Open questions of the previous summary that are open no more.
    """
    draft = bounded(draft)
    closed = {*answered, *_closed(previous, last, messages)}
    held = _Held(draft)
    carried: dict[str, list[Line]] = {name: [] for name in SECTIONS}
    quoted: dict[str, list[Line]] = {name: [] for name in SECTIONS}
    for needed in _of_summary(previous, closed):
        if held.lacks(needed):
            carried[needed.section].append(needed.line)
    for needed in _of_messages(messages):
        if held.lacks(needed):
            quoted[needed.section].append(needed.line)
    whole = _sections(
        draft, lambda name: _unique((*carried[name], *quoted[name], *draft.section(name)))
    )
    kept, left = _fit(whole)
    said = _Held(kept)
    lost = [line for line, name in left if name != "details" or said.lacks(_needed(line))]
    return kept, _add(dropped, lost)


def missing(summary: Summary, messages: Sequence[Message]) -> list[Line]:
    """The sentences of messages with facts that are not in a summary."""
    held = _Held(summary)
    return [needed.line for needed in _of_messages(messages) if held.lacks(needed)]


class _Held:
    """The facts that a summary has."""

    def __init__(self, summary: Summary) -> None:
        self._said = "|".join(f" {' '.join(words(line.text))} " for line in summary.lines())
        self._lines = {
            Kind.DECISION: [(set(words(line.text)), line) for line in summary.decisions],
            Kind.QUESTION: [(set(words(line.text)), line) for line in summary.open_questions],
        }
        self._more: set[Fact] = set()

    def lacks(self, needed: _Needed) -> bool:
        """Whether any fact is not there; a sentence that is asked about is held from then on."""
        lacking = [fact for fact in needed.facts if not self._has(fact, needed.line)]
        if lacking:
            self._more |= needed.facts
        return bool(lacking)

    def _has(self, fact: Fact, line: Line) -> bool:
        if fact in self._more or (fact.kind is Kind.DETAIL and f" {fact.key} " in self._said):
            return True
        if fact.kind is Kind.DETAIL:
            return False
        asked = set(fact.key.split())
        return any(
            len(asked & there) >= _SAME * len(asked)
            and not set(line.message_ids).isdisjoint(known.message_ids)
            for there, known in self._lines[fact.kind]
        )


def _needed(line: Line) -> _Needed:
    return _Needed(line, frozenset().union(*map(facts, pieces(line.text))))


def _of_summary(summary: Summary, closed: set[Line]) -> Iterator[_Needed]:
    for name, kind in (
        ("overview", Kind.DETAIL),
        ("details", Kind.DETAIL),
        ("decisions", Kind.DECISION),
        ("open_questions", Kind.QUESTION),
    ):
        for line in summary.section(name):
            found = {fact for fact in _needed(line).facts if fact.kind is Kind.DETAIL}
            if kind is not Kind.DETAIL and line not in closed:
                # It stands there whether or not its words show what it is.
                found.add(Fact(kind, " ".join(words(line.text))))
            if found:
                yield _Needed(line, frozenset(found))


def _of_messages(messages: Sequence[Message]) -> Iterator[_Needed]:
    for at, message in enumerate(messages):
        after = messages[at + 1] if at + 1 < len(messages) else None
        answered = after is not None and _answers(message.author, after)
        for piece in pieces(message.text):
            found = facts(piece)
            if answered:
                found = {fact for fact in found if fact.kind is not Kind.QUESTION}
            if found:
                yield _Needed(Line(piece, (message.message_id,)), frozenset(found))


def _answers(author: Author, after: Message) -> bool:
    return after.author is not author and not _EVADES.search(after.text)


def _closed(previous: Summary, last: str, messages: Sequence[Message]) -> list[Line]:
    """Questions that came last until now, where the agent answers them at once."""
    if not messages or not _answers(Author.USER, messages[0]):
        return []
    return [line for line in previous.open_questions if last in line.message_ids]


def _unique(lines: Iterable[Line]) -> Iterator[Line]:
    seen: set[str] = set()
    for line in lines:
        if line.text not in seen:
            seen.add(line.text)
            yield line


def bounded(summary: Summary) -> Summary:
    """A summary whose lines are no longer than a quotation, and name a few messages each."""
    return _sections(
        summary,
        lambda name: (
            Line(line.text[:LONGEST], line.message_ids[-_MAX_IDS:])
            for line in summary.section(name)
        ),
    )


def _sections(summary: Summary, lines: Callable[[str], Iterable[Line]]) -> Summary:
    """A summary of the same model, with other lines by the names of its sections."""
    overview, decisions, open_questions, details = (tuple(lines(name)) for name in SECTIONS)
    return Summary(overview, decisions, open_questions, details, summary.model)


def _fit(summary: Summary) -> tuple[Summary, list[tuple[Line, str]]]:
    """The newest lines of each section that fit, and the others with their sections' names."""
    left: list[tuple[Line, str]] = []
    sections: dict[str, tuple[Line, ...]] = {}
    spent = 0
    for name in SECTIONS:
        room = _SHARES.get(name, MAX_BYTES - spent)
        lines = summary.section(name)
        first = len(lines)
        while first and (size := len(lines[first - 1].text.encode())) <= room:
            room, spent, first = room - size, spent + size, first - 1
        left += [(line, name) for line in lines[:first]]
        sections[name] = lines[first:]
    return _sections(summary, sections.__getitem__), left


def _add(dropped: Sequence[Dropped], lines: Iterable[Line]) -> tuple[Dropped, ...]:
    """What was dropped before and now: the newest, within bounds."""
    known = {each.message_id: each.sentences for each in dropped}
    for line in lines:
        for message_id in line.message_ids:
            before = known.pop(message_id, ())
            more = () if line.text in before else (line.text,)
            known[message_id] = (*before, *more)[:MAX_SENTENCES]
    found: list[Dropped] = []
    room = _MAX_DROPPED_CHARACTERS
    for message_id, sentences in [*known.items()][: -MAX_DROPPED - 1 : -1]:
        room -= sum(map(len, sentences))
        found.append(Dropped(message_id, sentences if room > 0 else ()))
    return tuple(found[::-1])
