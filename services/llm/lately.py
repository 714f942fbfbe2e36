"""How each model did in the last five minutes, as this process saw it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from services.runtime.resilience.breaker import Breaker, State, Tuning
from services.runtime.resilience.retries import RetryBudget
from services.runtime.resilience.window import Clock

_SECONDS = 300.0
_BUCKETS = 30
# Bounds of the times to the first token, in seconds: each a fifth above the one before, from a
# millisecond to some ten minutes, so that a quantile is within a tenth of the truth.
_BOUNDS = [0.001 * 1.2**step for step in range(74)]
_MAX_MODELS = 10_000
# A provider that is away is left alone longer than a neighbour in the mesh, which gRPC watches.
_BREAKER = Tuning(
    window=30.0,
    least=20,
    share=0.6,
    first_pause=1.0,
    longest_pause=30.0,
    probe_seconds=30.0,
    in_a_row=8,
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a model; times in seconds, cost in millionths of a US dollar a call."""

    calls: int
    success_rate: float
    first_token_p50: float | None
    first_token_p95: float | None
    tokens_per_second: float
    mean_cost: int


class _Bucket:
    __slots__ = ("cost", "epoch", "failed", "firsts", "good", "seconds", "tokens")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.good = self.failed = self.tokens = self.cost = 0
        self.seconds = 0.0
        self.firsts: dict[int, int] = {}


class Record:
    """One model's last minutes, the breaker before it, and how often it may be asked again."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.breaker = Breaker(clock, _BREAKER)
        self.retries = RetryBudget(clock)
        self._clock = clock
        self._buckets: list[_Bucket] = []

    def began(self, seconds: float) -> None:
        """The first token came after so many seconds."""
        firsts = self._now().firsts
        step = bisect_left(_BOUNDS, seconds)
        firsts[step] = firsts.get(step, 0) + 1

    def ended(self, good: bool, tokens: int, seconds: float, cost: int) -> None:
        """A call ended, with so many tokens in its answer, which took so long."""
        bucket = self._now()
        if good:
            bucket.good += 1
        else:
            bucket.failed += 1
        bucket.tokens += tokens
        bucket.seconds += seconds
        bucket.cost += cost

    @property
    def open(self) -> bool:
        """Whether the model is left alone now."""
        return self.breaker.state is State.OPEN

    @property
    def first_token(self) -> float | None:
        """Seconds to the first token at the median; None where nothing is known."""
        return self.figures().first_token_p50

    def figures(self) -> Figures:
        """All that is known."""
        kept = list(self._live())
        good, failed = sum(each.good for each in kept), sum(each.failed for each in kept)
        calls = good + failed
        seconds = sum(each.seconds for each in kept)
        firsts: dict[int, int] = {}
        for each in kept:
            for step, count in each.firsts.items():
                firsts[step] = firsts.get(step, 0) + count
        return Figures(
            calls=calls,
            success_rate=good / calls if calls else 1.0,
            first_token_p50=_quantile(firsts, 0.5),
            first_token_p95=_quantile(firsts, 0.95),
            tokens_per_second=sum(each.tokens for each in kept) / seconds if seconds else 0.0,
            mean_cost=sum(each.cost for each in kept) // calls if calls else 0,
        )

    def _epoch(self) -> int:
        return int(self._clock() / (_SECONDS / _BUCKETS))

    def _live(self) -> Iterator[_Bucket]:
        oldest = self._epoch() - _BUCKETS + 1
        return (each for each in self._buckets if each.epoch >= oldest)

    def _now(self) -> _Bucket:
        epoch = self._epoch()
        if not self._buckets or self._buckets[-1].epoch != epoch:
            self._buckets = [*self._live(), _Bucket(epoch)]
        return self._buckets[-1]


class Lately:
    """The records of all models; of too many, those that were used last."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[tuple[str, str], Record] = OrderedDict()

    def of(self, provider_id: str, model: str) -> Record:
        """The record of a provider's model."""
        key = (provider_id, model)
        found = self._records.get(key)
        if found is None:
            found = self._records[key] = Record(self._clock)
            if len(self._records) > _MAX_MODELS:
                self._records.popitem(last=False)
        self._records.move_to_end(key)
        return found


def _quantile(steps: dict[int, int], share: float) -> float | None:
    """The upper bound of the step in which a share of the values ends."""
    left = share * sum(steps.values())
    for step in sorted(steps):
        left -= steps[step]
        if left <= 0:
            return _BOUNDS[min(step, len(_BOUNDS) - 1)]
    return None
