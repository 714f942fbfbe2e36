"""Texts as sparse vectors whose product is BM25 (Robertson and Zaragoza, 2009).

A document's numbers are how often it has each term, dampened and set against its length; a query's
are ones; the index multiplies by the rarity of each term among the tenant's own texts, so that
nothing of one tenant's texts shows in the scores of another.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

from services.context.text.words import query_terms, terms

K1 = 1.2
B = 0.75
# In terms: passages have about so many. The true mean moves with every change, and vectors do not.
AVERAGE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Sparse:
    """A vector by the places that are not zero."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def document(text: str) -> Sparse:
    """The vector of a text in the index."""
    found = terms(text)
    room = K1 * (1 - B + B * len(found) / AVERAGE_LENGTH)
    weights: dict[int, float] = {}
    for term, count in Counter(found).items():
        place = _place(term)
        # Two terms of one place are as good as one.
        weights[place] = max(weights.get(place, 0.0), count * (K1 + 1) / (count + room))
    return _sparse(weights)


def query(text: str) -> Sparse:
    """The vector of a query."""
    return _sparse({_place(term): 1.0 for term in query_terms(text)})


def _sparse(weights: dict[int, float]) -> Sparse:
    ordered = sorted(weights.items())
    return Sparse(tuple(place for place, _ in ordered), tuple(value for _, value in ordered))


def _place(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))
