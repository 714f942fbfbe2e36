"""The sentences that carry most of a text.

Centroid-based extraction as in MEAD: Radev, Jing, Styś and Tam, "Centroid-based summarization of
multiple documents" (Information Processing & Management 40, 2004). A sentence's score is the weight
of its words in the text's centroid, plus a bonus for standing early; what repeats a sentence that
was chosen already loses by the share that they have in common.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from services.llm.providers.words import content

_CENTROID_WORDS = 100
_SHORTEST = 4


def summarise(sentences: Sequence[str], size: int) -> list[int]:
    """The indexes of `size` sentences, in the order of the text."""
    stems = [content(each) for each in sentences]
    documents = Counter(word for each in stems for word in set(each))
    counts = Counter(word for each in stems for word in each)
    weights = {word: n * math.log(1 + len(stems) / documents[word]) for word, n in counts.items()}
    centroid = dict(sorted(weights.items(), key=lambda each: (-each[1], each[0]))[:_CENTROID_WORDS])
    scores = [_centrality(each, centroid) for each in stems]
    best = max(scores, default=0.0)
    # The first of n sentences gets what the most central one has, the last almost nothing.
    total = [
        score + best * (len(stems) - index) / len(stems) * (score > 0) / 2
        for index, score in enumerate(scores)
    ]
    return sorted(_chosen([set(each) for each in stems], total, size))


def _centrality(stems: Sequence[str], centroid: dict[str, float]) -> float:
    if len(stems) < _SHORTEST:
        # A heading has heavy words and says nothing.
        return 0.0
    # Divided by the root of its length, or the longest sentence would always win.
    return sum(centroid.get(word, 0.0) for word in set(stems)) / math.sqrt(len(stems))


def _chosen(stems: Sequence[set[str]], scores: Sequence[float], size: int) -> list[int]:
    chosen: list[int] = []
    overlap = [0.0] * len(stems)
    left = set(range(len(stems)))
    while left and len(chosen) < size:
        best = max(left, key=lambda index: (scores[index] * (1 - overlap[index]), -index))
        chosen.append(best)
        left.remove(best)
        for index in left:
            both = len(stems[index]) + len(stems[best])
            shared = 2 * len(stems[index] & stems[best]) / both if both else 0.0
            overlap[index] = max(overlap[index], shared)
    return chosen
