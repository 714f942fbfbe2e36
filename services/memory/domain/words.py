"""What a text says in words: what makes two texts alike, and what must be the same in both.

Likeness is the Jaccard index of pairs of words; texts that may be alike are found by MinHash and
bands (Broder, 1997; Leskovec, Rajaraman, Ullman, "Mining of massive datasets", chapter 3). Numbers
and negations are left out of it and compared by themselves: one of them turns what is said around.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

_WORD = re.compile(r"\d+(?:[.,:]\d+)*|\w+(?:['’]\w+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEGATIONS = _words(
    "not no never none nobody nothing nowhere neither nor without cannot "
    "nicht kein keine keinen keiner nie niemals niemand nichts ohne"
)
_NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion half twice"
)
_COPULAS = _words("is are was were equals ist sind war waren")
_ARTICLES = _words("the my your his her its our their der die das mein sein ihr")
_MOST_VALUE = 4
_BANDS, _ROWS = 6, 3
_MASKS = [random.Random(seed).getrandbits(64) for seed in range(_BANDS * _ROWS)]  # noqa: S311


@dataclass(frozen=True)
class Said:
    """A text in words.

    Attributes:
        words: All of them, without case and accents' variants, numbers included.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Said:
        """A text's words."""
        normal = unicodedata.normalize("NFKC", text).casefold()
        return cls(tuple(_WORD.findall(normal)) or (normal.strip(),))

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Its numbers, and names with digits in them, in their order."""
        return tuple(word for word in self.words if _is_number(word))

    @cached_property
    def negations(self) -> int:
        """How many words turn it around."""
        return sum(_is_negation(word) for word in self.words)

    @cached_property
    def frame(self) -> tuple[str, ...]:
        """The words without negations, and with a mark in the place of each number."""
        return tuple(
            "#" if _is_number(word) else word for word in self.words if not _is_negation(word)
        )

    @cached_property
    def pairs(self) -> frozenset[int]:
        """Hashes of the pairs of words in the frame; of a single word its own."""
        frame = self.frame
        pairs = (
            itertools.pairwise(frame)
            if len(frame) > 1
            else [("", frame[0])]
            if frame
            else [("", "")]
        )
        return frozenset(mark(*pair) for pair in pairs)

    @cached_property
    def bands(self) -> tuple[int, ...]:
        """Hashes of which texts that are alike have at least one in common."""
        pairs = self.pairs
        least = [min(map(mask.__xor__, pairs)) for mask in _MASKS]
        return tuple(
            mark("band", number, *least[number * _ROWS : (number + 1) * _ROWS])
            for number in range(_BANDS)
        )

    @cached_property
    def claim(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """What has one value, and the value: `the price of it` and `high`; None if unknown.

        It is read from texts of the form "<something definite> is <a few words>".
        """
        for place, word in enumerate(self.words):
            if word in _COPULAS:
                about, value = self.words[:place], self.words[place + 1 :]
                value = tuple(each for each in value if not _is_negation(each))
                definite = any(each in _ARTICLES or "'" in each or "’" in each for each in about)
                good = definite and len(about) > 1 and 0 < len(value) <= _MOST_VALUE
                return (about, value) if good else None
        return None


def likeness(first: Said, second: Said) -> float:
    """How much two texts are alike, 0 to 1; numbers and negations left out."""
    both = len(first.pairs & second.pairs)
    return both / (len(first.pairs) + len(second.pairs) - both)


def mark(*parts: object) -> int:
    """A hash of 63 bits, which any database keeps as an integer."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def normal(text: str) -> str:
    """A subject as it is compared."""
    return " ".join(Said.of(text).words) if text else ""


def terms(text: str) -> Iterable[str]:
    """The words by which a text is found."""
    return Said.of(text).words


def _is_number(word: str) -> bool:
    return word in _NUMBERS or any(letter.isdigit() for letter in word)


def _is_negation(word: str) -> bool:
    return word in _NEGATIONS or word.endswith(("n't", "n’t"))
