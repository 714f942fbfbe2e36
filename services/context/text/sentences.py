"""Where the sentences of a text are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.context.domain.sources import Span
from services.context.text.words import word_set

# Longer stretches without an end are cut: nobody wants them cited whole.
_MAX = 600
# Marks of a source that stand behind a sentence's end belong to it.
_ENDS = re.compile(
    r"[.!?…]+[\"'”’»)\]]*(?=\s|$)(?:\s?\[\d{1,3}\])*|[。！？｡।؟]+[」』”]*(?:\s?\[\d{1,3}\])*"
    r"|\n\s*\n|\n(?=\s*(?:[-*•–—#|]\s|\d{1,3}[.)]\s))"
)
_ABBREVIATIONS = word_set(
    """
    mr mrs ms dr prof st vs e.g i.e cf nr no fig vol pp approx z.b d.h u.a bzw ca usw etc
    """
)
_LAST_WORD = re.compile(r"[\w.]{1,8}$")


def sentences(text: str) -> Iterator[Span]:
    """The sentences of a text in their order, without the white space around them."""
    start = 0
    for match in _ENDS.finditer(text):
        if match.start() < start or _goes_on(text, start, match):
            continue
        yield from _cut(text, start, match.end())
        start = match.end()
    yield from _cut(text, start, len(text))


def _goes_on(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether what looks like an end is none: an abbreviation's, an initial's, a list's number."""
    if match[0] != ".":
        return False
    before = _LAST_WORD.search(text, max(start, match.start() - 8), match.start())
    word = before[0].casefold() if before else ""
    if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
        return True
    if word.isdecimal() and not text[start : match.start() - len(word)].strip():
        return True
    following = text[match.end() : match.end() + 2].lstrip()
    return following[:1].islower()


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    while True:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if end - start <= _MAX:
            break
        space = text.rfind(" ", start + _MAX // 2, start + _MAX)
        at = space if space > 0 else start + _MAX
        yield Span(start, at)
        start = at
    if any(character.isalnum() for character in text[start:end]):
        yield Span(start, end)
