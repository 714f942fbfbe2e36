"""Which sentences answer a question: BM25, and how much of the question a sentence covers.

The score is Robertson and Zaragoza's ("The Probabilistic Relevance Framework: BM25 and Beyond",
2009) with its usual constants, a sentence being a document. A score says which sentence is best,
not whether it is good; coverage says that: the share of the question's words, by weight, that are
in the sentence or, at half their weight, in the one before it, which is where a pronoun points.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.llm.providers.words import content

_K1 = 1.2
_B = 0.75
_BEFORE = 0.5
_FITTING_KIND = 1.15
_LATER = 0.02


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and where it stands.

    Attributes:
        text: In its own words.
        place: Its message, counted from the conversation's start.
        number: Its place in that message.
        directive: Whether it tells the model what to do, rather than what is so.
    """

    text: str
    place: int
    number: int
    directive: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """How well a sentence answers.

    Attributes:
        coverage: The share of the question that it covers, 0 to 1.
        score: Its rank; comparable within one question alone.
        leans: Whether it does so only together with the sentence before it.
        shared: How many words of the question are in it.
    """

    index: int
    coverage: float
    score: float
    leans: bool
    shared: int


def rank(
    question: Sequence[str], sentences: Sequence[Sentence], *, number_wanted: bool
) -> list[Match]:
    """The sentences that share a word with the question, best first.

    Args:
        question: The stems to look for.
        sentences: In the order of the conversation.
        number_wanted: Whether the answer is a number or a date, so that those with one rank higher.
    """
    wanted = set(question)
    counts = []
    lengths = []
    for sentence in sentences:
        stems = content(sentence.text)
        lengths.append(len(stems))
        counts.append(Counter(each for each in stems if each in wanted))
    weights = _weights(wanted, counts)
    total = sum(weights.values())
    if not total or not sentences:
        return []
    average = sum(lengths) / len(lengths) or 1.0
    found = []
    for index, (sentence, here) in enumerate(zip(sentences, counts, strict=True)):
        if not here:
            continue
        follows = index > 0 and sentences[index - 1].place == sentence.place
        before = counts[index - 1] if follows else Counter[str]()
        direct = sum(weights[each] for each in here)
        leant = sum(weights[each] for each in before if each not in here)
        score = _bm25(here, weights, lengths[index] / average) + _BEFORE * leant
        if number_wanted and any(character.isdigit() for character in sentence.text):
            score *= _FITTING_KIND
        # Of two that are equal, what was said last holds.
        score *= 1 + _LATER * index / len(sentences)
        found.append(
            Match(
                index=index,
                coverage=(direct + _BEFORE * leant) / total,
                score=score,
                leans=leant > 0,
                shared=len(here),
            )
        )
    return sorted(found, key=lambda each: (-each.score, each.index))


def _weights(wanted: set[str], counts: Sequence[Counter[str]]) -> dict[str, float]:
    """Inverse document frequency; a word that is nowhere weighs as one that is in one sentence."""
    documents = Counter(word for each in counts for word in each)
    size = len(counts)
    return {
        word: math.log(1 + (size - seen + 0.5) / (seen + 0.5))
        for word in wanted
        for seen in (max(1, documents[word]),)
    }


def _bm25(here: Counter[str], weights: dict[str, float], length: float) -> float:
    norm = _K1 * (1 - _B + _B * length)
    return sum(weights[word] * n * (_K1 + 1) / (n + norm) for word, n in here.items())
