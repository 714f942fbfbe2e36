"""A summary out of a text's own sentences: those nearest to the middle of all that is said.

Each sentence is weighed by how much of the texts' commonest matter it holds (the centroid of Radev,
Jing, Styś and Tam, 2004), and where something was asked, by how much of that it speaks of.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.context.domain.sources import Span
from services.context.text.likeness import coverage, repeats
from services.context.text.sentences import sentences
from services.context.text.words import terms

_MOST = 3_000
_LEAST_TERMS = 3
_ASKED_SHARE = 0.8
# Of what was asked, a quote must hold so much of what the best one holds.
_NEARLY = 0.5


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a source."""

    source_index: int
    span: Span


def quote(texts: Sequence[str], asked: frozenset[str], most: int) -> list[Quote]:
    """The most telling sentences, in the order of the texts; of what was asked, if anything."""
    found = [
        (Quote(index, span), text[span.start : span.end])
        for index, text in enumerate(texts)
        for span in sentences(text)
    ][:_MOST]
    bags = [Counter(terms(text)) for _, text in found]
    rarity = _rarity(bags)
    middle: Counter[str] = Counter()
    for bag in bags:
        middle.update({term: count * rarity[term] for term, count in bag.items()})
    whole = math.sqrt(sum(value * value for value in middle.values()))
    central = [_cosine(bag, rarity, middle, whole) for bag in bags]
    speaks = [coverage(asked, text) / len(asked) if asked else 0.0 for _, text in found]
    best = max(speaks, default=0.0)
    order = sorted(
        range(len(found)),
        key=lambda n: (-(_ASKED_SHARE * speaks[n] + (1 - _ASKED_SHARE) * central[n]), n),
    )
    chosen: list[int] = []
    stems: list[frozenset[str]] = []
    for place in order:
        if len(chosen) == most:
            break
        short = len(bags[place]) < _LEAST_TERMS and len(found) > most
        if short or (asked and speaks[place] < max(_NEARLY * best, 1e-9)):
            continue
        if not repeats(found[place][1], stems):
            chosen.append(place)
            stems.append(frozenset(bags[place]))
    return [found[place][0] for place in sorted(chosen)]


def _rarity(bags: Sequence[Counter[str]]) -> dict[str, float]:
    having = Counter(term for bag in bags for term in bag)
    return {term: math.log(1 + len(bags) / count) for term, count in having.items()}


def _cosine(
    bag: Counter[str], rarity: dict[str, float], middle: Counter[str], whole: float
) -> float:
    product = sum(count * rarity[term] * middle[term] for term, count in bag.items())
    size = math.sqrt(sum((count * rarity[term]) ** 2 for term, count in bag.items()))
    return product / (size * whole) if size and whole else 0.0
