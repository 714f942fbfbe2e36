"""Whether a text is for or against what it speaks of.

VADER: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text" (ICWSM 2014), by its authors' package: a lexicon of English words that people rated, and
rules for negation, emphasis and contrast. It scores a sentence; a text's score is the mean of those
of its sentences that say anything of the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

# The authors' own bounds.
_POSITIVE, _NEGATIVE = 0.05, -0.05


@dataclass(frozen=True, slots=True)
class Sentiment:
    """What a text sounds like.

    Attributes:
        label: `positive`, `negative` or `neutral`.
        score: From -1 to 1.
        strongest: The sentence that counts most; empty where none says anything of the kind.
    """

    label: str
    score: float
    strongest: str


def judge(sentences: Sequence[str]) -> Sentiment:
    """The sentiment of a text, given as its sentences."""
    scores = [_analyzer().polarity_scores(each)["compound"] for each in sentences]
    telling = [each for each in scores if each]
    score = sum(telling) / len(telling) if telling else 0.0
    strongest = max(range(len(scores)), key=lambda index: abs(scores[index]), default=None)
    label = "positive" if score >= _POSITIVE else "negative" if score <= _NEGATIVE else "neutral"
    said = sentences[strongest] if strongest is not None and telling else ""
    return Sentiment(label, round(score, 2), said)


@cache
def _analyzer() -> Any:
    # Read when first asked for: the lexicon takes longer than the rest of this model.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
