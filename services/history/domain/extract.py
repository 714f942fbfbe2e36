"""What of a text must not get lost: numbers, names, dates, decisions and open questions.

Deterministic rules over words, on purpose: what they find is compared with a summary, whoever wrote
it, so that the same text must give the same facts wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The longest piece of a message that is quoted, in characters.
LONGEST = 300
_TOKEN = re.compile(r"(?<!\w)[-−]?\d+(?:[.,:/-]\d+)*|[^\W\d_]+|\d+|[%‰€$£¥°#]")
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])([\"')\]»”]*) ")
_UNITS = _set(
    "% ‰ € $ £ ¥ ° eur usd gbp chf euro euros dollar dollars cent cents percent "
    "mm cm m km ft mi mg g kg t ml l ms s sec min h hz khz mhz ghz b kb mb gb tb kib mib gib "
    "tib w kw kwh mwh v ma mah pa bar c f px dpi am pm "
    "second seconds minute minutes hour hours day days week weeks month months year years "
    "meter meters metre metres kilometer kilometers kilometre kilometres mile miles gram grams "
    "kilogram kilograms ton tons tonne tonnes liter liters litre litres byte bytes "
    "million millions billion billions thousand"
)
_BEFORE = _set("€ $ £ ¥ # eur usd gbp chf")
_MONTHS = _set(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_NAME = re.compile(r"[^\W\d_]+(?:['’&-][^\W\d_]+)*")
_MARKED = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|https?://[^\s<>\"]+|\b(?=[\w-]*\d)(?=[\w-]*[^\W\d_])\w+(?:-\w+)*"
)
_DECISION = re.compile(
    r"\b(?:decid\w+|agreed|settled on|decision|we(?:'ll| will| shall) (?:use|go|take|do|move|keep)"
    r"|let(?:'|’)?s (?:use|go|take|do|move|keep)|go with|going with|chose|chosen"
    r"|entschieden|beschlossen|entscheidung)\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"1\d{3}|2\d{3}")
_SHORT = 3
_COMMON = _set("i i'm i'll i'd i've ok okay")


class Kind(Enum):
    """What a fact is."""

    DETAIL = "details"
    DECISION = "decisions"
    QUESTION = "open_questions"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that must not get lost: its words, as `words` gives them."""

    kind: Kind
    key: str


def pieces(text: str) -> Iterator[str]:
    """The sentences of a text, each on one line, the longest ones in parts."""
    for line in text.splitlines():
        # A sentence, what closes it behind its full stop, the next sentence, and so on.
        parts = [*_SENTENCE_END.split(" ".join(line.split())), ""]
        for sentence, closing in zip(parts[::2], parts[1::2], strict=True):
            yield from _short(sentence + closing)


def _short(sentence: str) -> Iterator[str]:
    left = sentence
    while len(left) > LONGEST:
        cut = left.rfind(" ", 1, LONGEST + 1)
        cut = cut if cut > 0 else LONGEST
        yield left[:cut]
        left = left[cut:].lstrip()
    if left:
        yield left


def words(text: str) -> list[str]:
    """A text as facts are compared: words and numbers, without case and without what is between."""
    return [found.casefold().replace("−", "-") for found in _TOKEN.findall(text)]


def facts(piece: str) -> set[Fact]:
    """The facts of one sentence."""
    found = {Fact(Kind.DETAIL, key) for key in (*_numbers(piece), *_names(piece), *_marked(piece))}
    key = " ".join(words(piece))
    if key and piece.rstrip("\"')]»” ").endswith(("?", "？")):
        found.add(Fact(Kind.QUESTION, key))
    elif key and _DECISION.search(piece):
        found.add(Fact(Kind.DECISION, key))
    return found


def _numbers(piece: str) -> Iterator[str]:
    """Numbers, each with its unit, its month, or what it counts."""
    found = words(piece)
    for at, number in enumerate(found):
        if not any(map(str.isdigit, number)):
            continue
        before = found[at - 1] if at else ""
        after = found[at + 1] if at + 1 < len(found) else ""
        first = f"{before} " if before in _MONTHS or before in _BEFORE else ""
        counted = len(after) > _SHORT and after.isalpha() and not _YEAR.fullmatch(number)
        last = f" {after}" if after in _UNITS or after in _MONTHS or counted else ""
        yield f"{first}{number}{last}"


def _names(piece: str) -> Iterator[str]:
    """Runs of words with capitals; one alone at the beginning is a name only in the midst of it."""
    run: list[str] = []
    first = end = 0
    for match in _NAME.finditer(piece):
        word = match.group()
        joined = piece[end : match.start()] == " "
        if not joined or not word[0].isupper():
            yield from _name(run, first)
            run = []
        if word[0].isupper() and word.casefold().replace("’", "'") not in _COMMON:
            first = first if run else match.start()
            run.append(word)
        end = match.end()
    yield from _name(run, first)


def _name(run: list[str], first: int) -> Iterator[str]:
    alone = first == 0 and len(run) == 1 and not (run[0].isupper() and len(run[0]) > 1)
    if run and not alone and (key := " ".join(words(" ".join(run)))):
        yield key


def _marked(piece: str) -> Iterator[str]:
    """Addresses, and words that have digits in them, such as `INV-4711`."""
    for match in _MARKED.finditer(piece):
        if key := " ".join(words(match.group())):
            yield key
