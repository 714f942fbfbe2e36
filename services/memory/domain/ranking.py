"""A small ranking by words, for what no index has: branches, and what was stored a moment ago.

BM25 with the usual constants (Robertson and Zaragoza, "The probabilistic relevance framework",
2009), over the few documents that it is given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from services.memory.domain.words import terms

_SATURATION, _LENGTH = 1.2, 0.75


def rank(query: str, texts: Mapping[str, str]) -> dict[str, float]:
    """The scores of those texts that have a word of the query, the best first."""
    wanted = set(terms(query))
    counts = {name: Counter(terms(text)) for name, text in texts.items()}
    lengths = {name: sum(count.values()) for name, count in counts.items()}
    mean = sum(lengths.values()) / max(1, len(lengths))
    weights = {}
    for word in wanted:
        having = sum(word in count for count in counts.values())
        weights[word] = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
    scores = {}
    for name, count in counts.items():
        dampened = _SATURATION * (1 - _LENGTH + _LENGTH * lengths[name] / mean)
        score = sum(
            weights[word] * count[word] * (_SATURATION + 1) / (count[word] + dampened)
            for word in wanted
            if word in count
        )
        if score:
            scores[name] = score
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
