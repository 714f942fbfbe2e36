"""Text to sentences, in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.llm.providers.words import word_set

# Longer stretches without an end are cut: nobody wants them quoted whole.
_MAX_SENTENCE = 600
# A line this long that ends in the middle of a sentence was broken to fit a page.
_WRAPPED_LINE = 55
# What is between the cells of a table: a line that has it is a row.
_CELLS = " | "
_UNSPACED_ENDS = "。！？｡।؟"
_CLOSING = "\"'”’»)]}」』"
_BULLETS = ("- ", "* ", "• ", "– ", "— ", "#", "|")
# A row of marks is one: walked one by one, a long row would cost its square.
_MARKS = re.compile(r"[.!?…。！？｡।؟]+|\n")
_ABBREVIATIONS = word_set(
    """
    mr mrs ms dr prof sr jr st vs e.g i.e eg ie cf nr fig figs eq ch vol pp approx sgt capt lt gov
    u.s u.k u.n ph.d jan feb apr jun jul aug sep sept oct nov dec z.b d.h u.a bzw ca evtl ggf inkl
    """
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each in its own words, with white space made single spaces.

    A sentence ends at a mark that is followed by white space and is not an abbreviation's or a
    number's, at a blank line, and at the end of a line that was not merely broken to fit.
    """
    found: list[str] = []
    for stretch in _stretches(text):
        sentence = " ".join(stretch.split())
        while len(sentence) > _MAX_SENTENCE:
            space = sentence.rfind(" ", _MAX_SENTENCE // 2, _MAX_SENTENCE)
            at = space if space > 0 else _MAX_SENTENCE
            found.append(sentence[:at])
            sentence = sentence[at:].lstrip()
        found.append(sentence)
    return [each for each in found if any(character.isalnum() for character in each)]


def _stretches(text: str) -> Iterator[str]:
    start = line = 0
    for match in _MARKS.finditer(text):
        at = match.start()
        if at < start:
            continue
        if text[at] == "\n":
            if _ends_line(text, line, at):
                yield text[start:at]
                start = at + 1
            line = at + 1
        elif (end := _sentence_end(text, start, at, match.end())) is not None:
            yield text[start:end]
            start = end
    yield text[start:]


def _sentence_end(text: str, start: int, at: int, after: int) -> int | None:
    """Where the sentence ends that the marks from `at` to `after` may end; None: it goes on."""
    end = after
    while end < len(text) and text[end] in _CLOSING:
        end += 1
    if text[after - 1] in _UNSPACED_ENDS or end == len(text):
        return end
    if not text[end].isspace():
        return None
    if text[after - 1] not in ".…":
        return end
    if after - at == 1 and _is_abbreviation(text, start, at):
        return None
    # After a full stop no sentence begins in lower case.
    return None if _next_character(text, end).islower() else end


def _is_abbreviation(text: str, start: int, at: int) -> bool:
    # Bounded: an abbreviation is short, and a text without spaces must not be scanned again.
    first = at
    while first > max(start, at - 8) and not text[first - 1].isspace():
        first -= 1
    word = text[first:at].lstrip("([\"'“‘").casefold()
    if word in _ABBREVIATIONS:
        return True
    # An initial, as in `J. Smith`; and the number of a list's item, as in `1. Open the lid`.
    initial = len(word) == 1 and word.isalpha() and word != "i"
    item = word.isdecimal() and first - start < 8 and not text[start:first].strip()
    return initial or item


def _ends_line(text: str, line: int, at: int) -> bool:
    if _CELLS in text[line:at]:
        return True
    following = text[at + 1 : at + 82].lstrip(" \t\r")
    if not following or following[0] == "\n" or following.startswith(_BULLETS):
        return True
    if following[0].islower():
        return False
    before = text[line:at].rstrip()
    return at - line < _WRAPPED_LINE or before.endswith((":", ";"))


def _next_character(text: str, at: int) -> str:
    for character in text[at : at + 80]:
        if not character.isspace():
            return character
    return ""
