"""How good a ranking is, and an answer's citation, by the judged set.

What is compared are words: letters and digits of any script, folded. So white space, marks of
Markdown and what separates the cells of a table make no difference.

A passage counts for a quote that it holds. Where no passage of the document holds a quote whole,
the one that holds the longest run of its words counts, if that is more than half of them. Each
quote counts once in a ranking, for the first passage that holds it; a passage with several quotes
has the highest of their grades.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from tests.quality.judged import Judgement

# From this grade on a quote answers at least partly; below it is background, or outdated.
USEFUL = 2
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Passage:
    """What was made of a part of a document.

    Attributes:
        id: Its own.
        document: The path of the document, or of the one it is attached to.
        title: What the document is called.
        headings: Those above it, the outermost first.
        text: What it says.
    """

    id: str
    document: str
    text: str
    title: str = ""
    headings: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """Its text below what it is called."""
        return "\n".join(filter(None, (self.title, *self.headings, self.text)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was judged to matter for a question, and where it is.

    Attributes:
        grades: Of each quote.
        held: For each passage that holds quotes, which ones.
    """

    grades: Sequence[int]
    held: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def lost(self) -> list[int]:
        """The quotes that no passage holds."""
        found = {each for some in self.held.values() for each in some}
        return [number for number in range(len(self.grades)) if number not in found]


def folded(text: str) -> str:
    """The words of a text, with a space before and after each."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return f" {' '.join(found)} " if found else ""


def holds(text: str, quote: str) -> bool:
    """Whether a text says a quote, word for word."""
    wanted = folded(quote)
    return bool(wanted) and wanted in folded(text)


def share(text: str, quote: str) -> float:
    """How much of a quote's words the longest run of them has that is in a text, 0 to 1."""
    wanted, given = folded(quote).split(), folded(text).split()
    if not wanted:
        return 0.0
    matcher = SequenceMatcher(None, wanted, given, autojunk=False)
    return matcher.find_longest_match().size / len(wanted)


def wanted(judgements: Sequence[Judgement], passages: Mapping[str, Sequence[Passage]]) -> Wanted:
    """Where a question's quotes are.

    Args:
        judgements: What was judged.
        passages: By document, in their order.
    """
    held: dict[str, list[int]] = {}
    for number, judgement in enumerate(judgements):
        for passage in _holding(judgement.quote, passages.get(judgement.document, ())):
            held.setdefault(passage.id, []).append(number)
    return Wanted([each.grade for each in judgements], held)


def _holding(quote: str, passages: Sequence[Passage]) -> Sequence[Passage]:
    found = [each for each in passages if holds(each.text, quote)]
    found = found or [each for each in passages if holds(each.whole, quote)]
    if found or not passages:
        return found
    best = max(passages, key=lambda each: share(each.text, quote))
    return [best] if share(best.text, quote) > 0.5 else []


def gains(ranking: Sequence[str], wanted: Wanted) -> list[int]:
    """The grade that each place of a ranking of passages brings."""
    left = set(range(len(wanted.grades)))
    found = []
    for passage in ranking:
        new = left.intersection(wanted.held.get(passage, ()))
        found.append(max((wanted.grades[each] for each in new), default=0))
        left -= new
    return found


def ndcg(ranking: Sequence[str], wanted: Wanted, depth: int = 10) -> float:
    """Normalised discounted cumulated gain with the gain 2^grade - 1 (Burges et al. 2005).

    The ideal has every quote, also those that no passage holds: what a parser lost is missed.
    """
    best = sorted(wanted.held, key=lambda each: -max(wanted.grades[n] for n in wanted.held[each]))
    ideal = gains(best, wanted) + [wanted.grades[each] for each in wanted.lost]
    most = _discounted(sorted(ideal, reverse=True)[:depth])
    return _discounted(gains(ranking[:depth], wanted)) / most if most else 0.0


def _discounted(found: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / math.log2(place + 2) for place, grade in enumerate(found))


def recall(ranking: Sequence[str], wanted: Wanted, depth: int = 20) -> float:
    """Which share of the useful quotes is in the first passages."""
    useful = {number for number, grade in enumerate(wanted.grades) if grade >= USEFUL}
    found = {number for each in ranking[:depth] for number in wanted.held.get(each, ())}
    return len(useful & found) / len(useful) if useful else 0.0


def reciprocal_rank(ranking: Sequence[str], wanted: Wanted) -> float:
    """One by the place of the first useful passage; 0 where there is none."""
    for place, grade in enumerate(gains(ranking, wanted), start=1):
        if grade >= USEFUL:
            return 1 / place
    return 0.0


def supports(quote: str, sentence: str) -> bool:
    """Whether a quote stands behind a sentence word for word: one of them holds the other."""
    return holds(sentence, quote) or holds(quote, sentence)
