"""Rounds, interleaved: what changes on the machine changes for both sides."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.load import Job, Outcome
from tests.bench.process import load

ROUNDS = 5
Pick = Callable[[Outcome], float]


@dataclass
class Row:
    """One line of the table.

    Attributes:
        key: Such as P6.
        work: What was measured.
        ours: With its unit.
        peer: With its unit.
        ratio: Ours to the peer's; the figure itself where there is no peer.
        goal: Such as `>= 0.80`.
        limit: What limits it, in a few words.
        unit: Of `ratio`.
    """

    key: str
    work: str
    ours: str
    peer: str
    ratio: float
    goal: str
    limit: str = ""
    unit: str = "x"

    @property
    def reached(self) -> bool:
        """Whether the goal is."""
        sign, bound = self.goal.split()[:2]
        least = float(bound)
        return self.ratio >= least if sign == ">=" else self.ratio <= least


@dataclass
class Report:
    """What a run found out."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def interleaved(
    name: str, sides: Mapping[str, Job], rounds: int = ROUNDS
) -> dict[str, list[Outcome]]:
    """The outcomes of each side; every other round goes the other way round."""
    found: dict[str, list[Outcome]] = {side: [] for side in sides}
    for number in range(rounds):
        order = list(sides.items())
        for side, job in order if number % 2 == 0 else order[::-1]:
            found[side].append(await load(job))
        rates = ", ".join(f"{side} {outcomes[-1].rate:,.0f}/s" for side, outcomes in found.items())
        say(f"    {name}, round {number + 1} of {rounds}: {rates}")
    return found


def median(outcomes: Sequence[Outcome], pick: Pick) -> float:
    """The median of a figure."""
    return statistics.median(map(pick, outcomes))


def ratio(ours: Sequence[Outcome], peer: Sequence[Outcome], pick: Pick) -> float:
    """The median of the rounds' ratios, since the two of a round had the same machine."""
    return statistics.median(pick(one) / pick(other) for one, other in zip(ours, peer, strict=True))


def rate(outcome: Outcome) -> float:
    """Good replies a second."""
    return outcome.rate


def shares(outcomes: Sequence[Outcome], names: Mapping[str, str]) -> str:
    """How much of a core each process used, by what people call it."""

    def share(name: str) -> float:
        return median(outcomes, lambda one: one.cpu[name] / one.seconds)

    return ", ".join(f"{text} {share(name):.0%}" for name, text in names.items())
