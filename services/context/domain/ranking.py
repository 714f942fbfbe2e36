"""Several rankings made one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

# Reciprocal rank fusion and its constant: Cormack, Clarke and Büttcher (2009).
_K = 60


class Signal(IntEnum):
    """By what something was ranked, by the contract's numbers."""

    LEXICAL = 1
    SEMANTIC = 2
    RERANK = 3


@dataclass(frozen=True, slots=True)
class Rank:
    """A place in one ranking, from 1."""

    signal: Signal
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """Something, with its place in every ranking that has it."""

    key: str
    score: float
    ranks: Sequence[Rank] = ()


def fuse(rankings: Mapping[Signal, Sequence[tuple[str, float]]]) -> list[Ranked]:
    """One ranking out of several; the same input gives the same order.

    Args:
        rankings: Keys and scores of each, best first. A key that comes again counts where it is
            first.
    """
    ranks: dict[str, list[Rank]] = {}
    for signal, ranking in sorted(rankings.items()):
        first: dict[str, float] = {}
        for key, score in ranking:
            first.setdefault(key, score)
        for place, (key, score) in enumerate(first.items(), start=1):
            ranks.setdefault(key, []).append(Rank(signal, place, score))
    found = [
        Ranked(key, sum(1 / (_K + each.rank) for each in its), tuple(its))
        for key, its in ranks.items()
    ]
    return sorted(found, key=lambda each: (-each.score, each.key))
