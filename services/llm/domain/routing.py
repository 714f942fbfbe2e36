"""Which model serves a request: who qualifies, in which order, and why the others did not.

Nothing here waits, and nothing is called: what is known of prices, windows and the last minutes
goes in, an order comes out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

MICROS = 1_000_000
# A model of which nothing is known yet is tried as if it were as fast as the fastest.
_UNKNOWN = 0.0
_CHANCE = random.Random()  # noqa: S311


class Capability(Enum):
    """What a model can do besides answering in text; the values are the contract's names."""

    TOOLS = 1
    JSON = 2
    VISION = 3
    EMBEDDINGS = 4
    MODERATION = 5


class Policy(Enum):
    """How a route chooses among those that qualify; the values are the contract's numbers."""

    FIXED = 1
    CHEAPEST = 2
    FASTEST = 3
    WEIGHTED = 4
    SCORE = 5


class Why(Enum):
    """Why a candidate did not serve; the values are the contract's numbers."""

    GONE = 1
    CAPABILITY = 2
    WINDOW = 3
    COST = 4
    CIRCUIT_OPEN = 5
    FAILED = 6
    TOO_SLOW = 7
    BUSY = 8


@dataclass(frozen=True, slots=True)
class Price:
    """Millionths of a US dollar for a million tokens."""

    input: int = 0
    output: int = 0

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """Millionths of a US dollar for so many tokens, rounded up."""
        return -(-(self.input * input_tokens + self.output * output_tokens) // MICROS)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as a route sees it.

    Attributes:
        name: `<provider>/<model>`.
        context_window: Tokens that the request and its answer share.
        max_output_tokens: The longest answer; 0 is whatever the window leaves.
        quality: As its provider's configuration has it, 0 to 1.
        first_token: Seconds to the first token lately; None where nothing is known.
        open: Whether its circuit is: it failed so often lately that it is left alone.
    """

    name: str
    context_window: int
    max_output_tokens: int = 0
    price: Price = Price()
    capabilities: frozenset[Capability] = frozenset()
    quality: float = 0.0
    first_token: float | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of a route, with its share for the policy WEIGHTED."""

    model: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on who may serve; 0 is no bound. Millionths of a US dollar, and milliseconds."""

    max_cost: int = 0
    max_first_token_ms: int = 0

    def tightened(self, other: Limits) -> Limits:
        """Both hold."""

        def least(one: int, two: int) -> int:
            return min(one, two) if one and two else one or two

        return Limits(
            least(self.max_cost, other.max_cost),
            least(self.max_first_token_ms, other.max_first_token_ms),
        )


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each counts in a score."""

    cost: float = 0.0
    latency: float = 0.0
    quality: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A route, as far as it chooses; after `hedge_after_ms` a second candidate is asked too."""

    candidates: tuple[Candidate, ...]
    policy: Policy = Policy.FIXED
    limits: Limits = Limits()
    weights: Weights = Weights()
    hedge_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks of a model.

    Attributes:
        input_tokens: Estimated.
        max_output_tokens: As the request has it; None leaves it to the model.
        session: Keeps its candidate under WEIGHTED; empty is by chance.
    """

    input_tokens: int
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    session: str = ""

    def longest_answer(self, offer: Offer) -> int:
        """The most tokens that this model's answer to it can have."""
        left = max(0, offer.context_window - self.input_tokens)
        bounds = (self.max_output_tokens, offer.max_output_tokens)
        return min([left, *(each for each in bounds if each)])

    def most_cost(self, offer: Offer) -> int:
        """The most that this model can charge for it."""
        return offer.price.of(self.input_tokens, self.longest_answer(offer))


@dataclass(frozen=True, slots=True)
class Passed:
    """A candidate that does not serve."""

    model: str
    why: Why


@dataclass(slots=True)
class Choice:
    """Who may serve, best first, and who may not."""

    offers: list[Offer] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)


def choose(
    plan: Plan, offers: Mapping[str, Offer], need: Need, chance: random.Random | None = None
) -> Choice:
    """The order in which a route's candidates are to be tried.

    A candidate whose circuit is open comes after all others rather than not at all where nobody
    else is left: a call that must fail may as well find out that the model is back.

    Args:
        plan: The route.
        offers: What is known of each model, by name; those that are gone are missing.
        need: What the request asks.
        chance: For the policy WEIGHTED without a session.
    """
    found = Choice()
    good: list[tuple[Candidate, Offer]] = []
    waiting: list[tuple[Candidate, Offer]] = []
    for candidate in plan.candidates:
        offer = offers.get(candidate.model)
        why = Why.GONE if offer is None else _unfit(offer, need, plan.limits)
        if offer is None or why is not None:
            found.passed.append(Passed(candidate.model, why or Why.GONE))
        elif offer.open:
            waiting.append((candidate, offer))
        else:
            good.append((candidate, offer))
    if good:
        found.passed.extend(Passed(offer.name, Why.CIRCUIT_OPEN) for _, offer in waiting)
    else:
        good = waiting
    found.offers = _ordered(plan, good, need, chance or _CHANCE)
    return found


def _unfit(offer: Offer, need: Need, limits: Limits) -> Why | None:
    if not need.capabilities <= offer.capabilities:
        return Why.CAPABILITY
    room = need.longest_answer(offer)
    if room <= 0 or (need.max_output_tokens or 0) > offer.context_window - need.input_tokens:
        return Why.WINDOW
    if limits.max_cost and need.most_cost(offer) > limits.max_cost:
        return Why.COST
    return None


def _ordered(
    plan: Plan, found: Sequence[tuple[Candidate, Offer]], need: Need, chance: random.Random
) -> list[Offer]:
    """By the policy; equals stay in the route's order."""
    if plan.policy is Policy.WEIGHTED:
        return _drawn(found, need, chance)
    offers = [offer for _, offer in found]
    keys: dict[Policy, Callable[[Offer], float]] = {
        Policy.FIXED: lambda offer: 0.0,
        Policy.CHEAPEST: lambda offer: float(need.most_cost(offer)),
        Policy.FASTEST: lambda offer: offer.first_token or _UNKNOWN,
        Policy.SCORE: lambda offer: -scores[offer.name],
    }
    scores = _scores(offers, need, plan.weights) if plan.policy is Policy.SCORE else {}
    return sorted(offers, key=keys[plan.policy])


def _drawn(
    found: Sequence[tuple[Candidate, Offer]], need: Need, chance: random.Random
) -> list[Offer]:
    """A draw without putting back: Efraimidis and Spirakis (2006), with keys u^(1/w)."""

    def key(candidate: Candidate) -> float:
        # A session's own number for each candidate keeps its choice, and keeps it too when
        # another candidate comes or goes.
        drawn = (
            random.Random(f"{need.session}/{candidate.model}").random()  # noqa: S311
            if need.session
            else chance.random()
        )
        return float(drawn ** (1 / candidate.weight)) if candidate.weight else drawn - 1

    return [offer for _, offer in sorted(((key(one), two) for one, two in found), key=_first)[::-1]]


def _first(pair: tuple[float, Offer]) -> float:
    return pair[0]


def _scores(offers: Sequence[Offer], need: Need, weights: Weights) -> dict[str, float]:
    """The weighted mean of cost, latency and quality, each from 0 to 1 among these."""
    parts = (
        (weights.cost, [-float(need.most_cost(each)) for each in offers]),
        (weights.latency, [-(each.first_token or _UNKNOWN) for each in offers]),
        (weights.quality, [each.quality for each in offers]),
    )
    if not any(weight for weight, _ in parts):
        parts = tuple((1.0, values) for _, values in parts)  # type: ignore[assignment]
    scores = dict.fromkeys((each.name for each in offers), 0.0)
    for weight, values in parts:
        low, high = min(values, default=0.0), max(values, default=0.0)
        for offer, value in zip(offers, values, strict=True):
            scores[offer.name] += weight * ((value - low) / (high - low) if high > low else 1.0)
    return scores
