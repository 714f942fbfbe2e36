"""Whether a text says what a sentence says, as far as words show it.

A sentence is supported by one or two sentences that stand together where these have enough of its
content words and all of its numbers, and deny just as it does, and where the source has its names.
It is a test of words, not of meaning: what passes may still be wrong, what fails was not said in
these words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.context.domain.sources import Span
from services.context.text.sentences import sentences
from services.context.text.words import ENGLISH, is_stop, language_of, stem, word_set, words

# Of the content words of a sentence, so many must stand in what supports it.
ENOUGH = 0.6
STRONG = 0.8
_MOST_SENTENCES = 20_000
_DENIALS = word_set(
    """
    not no never none nor neither nothing without cannot nicht kein keine keinen keiner nie
    niemals ohne pas jamais aucun sans nunca sin non mai senza не нет никогда без
    """
)
# What is left of `isn't` and `can't` where words end at an apostrophe.
_DENIAL = re.compile(r"n['’]t\b")
_MARK = re.compile(r"\[\d{1,3}\]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "ninety": 90}
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve"
_ORDERS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_NUMBER_WORDS = {
    **{word: str(number) for number, word in enumerate(_UNITS.split())},
    **{word: str(number) for number, word in enumerate(_ORDERS.split(), start=1)},
    **{word: str(number) for word, number in _TENS.items()},
}
# In which every noun begins with a capital, so that a capital says nothing.
_CAPITALS = "german"


@dataclass(frozen=True, slots=True)
class Said:
    """What a sentence says, as far as it is compared; `denies` is None of two that do not agree."""

    stems: frozenset[str]
    names: frozenset[str]
    numbers: frozenset[str]
    denies: bool | None


@dataclass(frozen=True, slots=True)
class Support:
    """What stands behind a sentence: where, and how much of its content words."""

    source_index: int
    span: Span
    share: float


def said(text: str) -> Said:
    """What a text says; marks of sources are no part of it."""
    bare = _MARK.sub(" ", text)
    found = list(words(bare))
    language = language_of(found) or ENGLISH
    numbers = {_number(each) for each in _NUMBER.findall(bare)}
    numbers |= {_NUMBER_WORDS[each.text] for each in found if each.text in _NUMBER_WORDS}
    denies = any(each.text in _DENIALS for each in found) or bool(_DENIAL.search(bare))
    stems = frozenset(
        stem(each.text, language)
        for each in found
        if not is_stop(each.text, language) and each.text not in _NUMBER_WORDS
    )
    names = frozenset(
        stem(each.text, language)
        for each in found[1:]
        if language != _CAPITALS and bare[each.start].isupper() and each.text not in _NUMBER_WORDS
    )
    return Said(stems - _DENIALS, names & stems, frozenset(numbers), denies)


def _number(text: str) -> str:
    """A number as it is compared: `1,000` is 1000, `2.50` is 2.5."""
    grouped = re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", text)
    if grouped:
        return re.sub(r"[.,]", "", text)
    whole, mark, rest = text.replace(",", ".").partition(".")
    rest = rest.rstrip("0")
    return f"{whole.lstrip('0') or '0'}.{rest}" if mark and rest else whole.lstrip("0") or "0"


class Sources:
    """Texts that sentences may stand on."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self._windows: list[tuple[int, Span, Said]] = []
        self._by_stem: dict[str, list[int]] = {}
        self._stems: list[frozenset[str]] = []
        for index, text in enumerate(texts):
            self._read(index, text)

    def _read(self, index: int, text: str) -> None:
        self._stems.append(said(text).stems)
        before: tuple[Span, Said] | None = None
        for span in sentences(text):
            if len(self._windows) >= _MOST_SENTENCES:
                return
            here = said(text[span.start : span.end])
            self._add(index, span, here)
            if before is not None:
                both = Span(before[0].start, span.end)
                self._add(index, both, _joined(before[1], here))
            before = span, here

    def _add(self, index: int, span: Span, says: Said) -> None:
        for each in says.stems:
            self._by_stem.setdefault(each, []).append(len(self._windows))
        self._windows.append((index, span, says))

    def best(
        self, sentence: Said, enough: float, only: int | None = None, *, strict: bool = True
    ) -> Support | None:
        """What stands behind a sentence best; None where nothing does.

        Args:
            sentence: What it says.
            enough: How much of its content words must be there.
            only: The one source to look at.
            strict: Whether numbers, denials and names must agree.
        """
        if not sentence.stems:
            return None
        shared = Counter(place for each in sentence.stems for place in self._by_stem.get(each, ()))
        best: tuple[float, int, int] | None = None
        for place, count in shared.items():
            index, span, says = self._windows[place]
            share = count / len(sentence.stems)
            if share < enough or (only is not None and index != only):
                continue
            if strict and not (_agrees(sentence, says) and sentence.names <= self._stems[index]):
                continue
            # As much as possible, in as few words as possible, as early as possible.
            rank = (share, span.start - span.end, -place)
            if best is None or rank > best:
                best = rank
        if best is None:
            return None
        index, span, _ = self._windows[-best[2]]
        return Support(index, span, best[0])


def _agrees(sentence: Said, source: Said) -> bool:
    return sentence.numbers <= source.numbers and sentence.denies == source.denies


def _joined(first: Said, second: Said) -> Said:
    return Said(
        first.stems | second.stems,
        first.names | second.names,
        first.numbers | second.numbers,
        first.denies if first.denies == second.denies else None,
    )
