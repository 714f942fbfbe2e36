"""The words and phrases that a text is about.

C-value: Frantzi, Ananiadou and Mima, "Automatic recognition of multi-word terms" (International
Journal on Digital Libraries 3, 2000), over what stands between stop words. A phrase weighs by how
often it stands and by its length, less how often it stands inside longer ones. What comes once
follows what the text comes back to.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from services.llm.providers.words import STOP_WORDS, stem, words

_LONGEST = 3
# Marks that part phrases; an apostrophe or a hyphen is inside a word.
_PARTS = re.compile(r"[^\w\s'’\-]+")
Phrase = tuple[str, ...]


def keywords(sentences: Sequence[str], size: int) -> list[str]:
    """The `size` phrases that weigh most, as they stand in the text, the heaviest first."""
    counts: Counter[Phrase] = Counter()
    shown: dict[Phrase, str] = {}
    for run in (run for sentence in sentences for run in _runs(sentence)):
        stems = tuple(map(stem, run))
        for first, last in _spans(len(run)):
            counts[stems[first:last]] += 1
            shown.setdefault(stems[first:last], " ".join(run[first:last]))
    around: dict[Phrase, list[int]] = defaultdict(list)
    for phrase, count in counts.items():
        for inside in {phrase[first:last] for first, last in _spans(len(phrase))} - {phrase}:
            around[inside].append(count)
    weights = {phrase: _weight(phrase, count, around[phrase]) for phrase, count in counts.items()}
    kept = [phrase for phrase, weight in weights.items() if weight > 0]
    # Of two that weigh the same the first in the text: dictionaries keep its order.
    kept.sort(key=lambda phrase: (counts[phrase] == 1, -weights[phrase]))
    return [shown[phrase] for phrase in kept[:size]]


def _weight(phrase: Phrase, count: int, around: Sequence[int]) -> float:
    inside = sum(around) / len(around) if around else 0.0
    return math.log2(len(phrase) + 1) * (count - inside)


def _spans(length: int) -> Iterator[tuple[int, int]]:
    for first in range(length):
        for last in range(first + 1, min(length, first + _LONGEST) + 1):
            yield first, last


def _runs(sentence: str) -> Iterator[list[str]]:
    for part in _PARTS.split(sentence):
        run: list[str] = []
        for word in [*words(part), ""]:
            if len(word) > 1 and word not in STOP_WORDS and not word.isdecimal():
                run.append(word)
            elif run:
                yield run
                run = []
