"""Who serves a request, and why the others do not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm.domain.routing import (
    Candidate,
    Capability,
    Choice,
    Limits,
    Need,
    Offer,
    Passed,
    Plan,
    Policy,
    Price,
    Weights,
    Why,
    choose,
)

DEAR = Offer("a/dear", 1000, price=Price(10_000_000, 30_000_000), quality=0.9, first_token=0.2)
CHEAP = Offer("a/cheap", 1000, price=Price(100_000, 300_000), quality=0.3, first_token=0.9)
FREE = Offer("b/free", 500, quality=0.1, first_token=2.0)
ALL = (DEAR, CHEAP, FREE)
NO_LIMITS, EVEN = Limits(), Weights()
SMALL = Need(input_tokens=100, max_output_tokens=100)


def chosen(
    policy: Policy,
    offers: Iterable[Offer] = ALL,
    need: Need = SMALL,
    limits: Limits = NO_LIMITS,
    weights: Weights = EVEN,
) -> Choice:
    known = {each.name: each for each in offers}
    plan = Plan(tuple(Candidate(each.name) for each in ALL), policy, limits, weights)
    return choose(plan, known, need)


def names(choice: Choice) -> list[str]:
    return [each.name for each in choice.offers]


@pytest.mark.parametrize(
    ("policy", "weights", "order"),
    [
        (Policy.FIXED, Weights(), ["a/dear", "a/cheap", "b/free"]),
        (Policy.CHEAPEST, Weights(), ["b/free", "a/cheap", "a/dear"]),
        (Policy.FASTEST, Weights(), ["a/dear", "a/cheap", "b/free"]),
        (Policy.SCORE, Weights(cost=1), ["b/free", "a/cheap", "a/dear"]),
        (Policy.SCORE, Weights(latency=1), ["a/dear", "a/cheap", "b/free"]),
        (Policy.SCORE, Weights(quality=1), ["a/dear", "a/cheap", "b/free"]),
        (Policy.SCORE, Weights(cost=0.9, quality=0.1), ["a/cheap", "b/free", "a/dear"]),
    ],
)
def test_each_policy_has_its_order(policy: Policy, weights: Weights, order: list[str]) -> None:
    choice = chosen(policy, weights=weights)
    assert (names(choice), choice.passed) == (order, [])


@pytest.mark.parametrize(
    ("need", "limits", "passed"),
    [
        (Need(600, 100), Limits(), [Passed("b/free", Why.WINDOW)]),
        (Need(950, 100), Limits(), [Passed(each.name, Why.WINDOW) for each in ALL]),
        (Need(100, 100), Limits(max_cost=3999), [Passed("a/dear", Why.COST)]),
        (Need(100, 100), Limits(max_cost=4000), []),
        # Without a bound of its own the answer may fill the window: 900 tokens at 30.
        (Need(100), Limits(max_cost=27_999), [Passed("a/dear", Why.COST)]),
        (Need(100), Limits(max_cost=28_000), []),
        (
            Need(1, 1, frozenset({Capability.TOOLS})),
            Limits(),
            [Passed(each.name, Why.CAPABILITY) for each in ALL],
        ),
    ],
)
def test_who_does_not_qualify_is_told(need: Need, limits: Limits, passed: list[Passed]) -> None:
    choice = chosen(Policy.FIXED, need=need, limits=limits)
    assert choice.passed == passed
    assert len(choice.offers) == len(ALL) - len(passed)


def test_who_is_gone_or_failing_comes_last() -> None:
    failing = Offer("a/dear", 1000, open=True)
    choice = chosen(Policy.FIXED, (failing, CHEAP))
    assert names(choice) == ["a/cheap"]
    assert choice.passed == [Passed("b/free", Why.GONE), Passed("a/dear", Why.CIRCUIT_OPEN)]
    # With nobody else left it is asked after all.
    assert names(chosen(Policy.FIXED, (failing,))) == ["a/dear"]


def test_a_model_of_which_nothing_is_known_is_tried() -> None:
    assert names(chosen(Policy.FASTEST, (DEAR, Offer("a/cheap", 1000))))[0] == "a/cheap"


def test_shares_are_kept() -> None:
    plan = Plan(
        (Candidate("a/dear", 70), Candidate("a/cheap", 30), Candidate("b/free", 0)),
        Policy.WEIGHTED,
    )
    offers = {each.name: each for each in ALL}
    chance = random.Random(7)
    first = Counter(choose(plan, offers, SMALL, chance).offers[0].name for _ in range(4000))
    assert first["b/free"] == 0
    assert 0.67 < first["a/dear"] / 4000 < 0.73
    sessions = [Need(1, session=f"ses_{number}") for number in range(4000)]
    of = {each.session: names(choose(plan, offers, each))[0] for each in sessions}
    assert 0.67 < Counter(of.values())["a/dear"] / 4000 < 0.73
    assert all(names(choose(plan, offers, each))[0] == of[each.session] for each in sessions)
    # A candidate that goes takes nobody's along but its own.
    del offers["a/cheap"]
    for each in sessions:
        if of[each.session] == "a/dear":
            assert names(choose(plan, offers, each))[0] == "a/dear"


@given(
    st.sampled_from(Policy),
    st.integers(0, 2000),
    st.none() | st.integers(1, 2000),
    st.integers(0, 100_000),
    st.sets(st.sampled_from([each.name for each in ALL])),
)
def test_everyone_is_either_in_or_out(
    policy: Policy, size: int, longest: int | None, most: int, there: set[str]
) -> None:
    need = Need(size, longest)
    choice = chosen(policy, [each for each in ALL if each.name in there], need, Limits(most))
    assert sorted([*names(choice), *(each.model for each in choice.passed)]) == sorted(
        each.name for each in ALL
    )
    for offer in choice.offers:
        assert not most or need.most_cost(offer) <= most
        assert need.input_tokens + need.longest_answer(offer) <= offer.context_window


def test_prices_are_rounded_up() -> None:
    assert Price(1, 1).of(1, 0) == 1
    assert Price(0, 0).of(10**9, 10**9) == 0
    assert Price(2_500_000, 10_000_000).of(1000, 500) == 7500


@pytest.mark.parametrize(
    ("one", "two", "both"),
    [
        (Limits(), Limits(5, 6), Limits(5, 6)),
        (Limits(4, 9), Limits(5, 6), Limits(4, 6)),
        (Limits(4), Limits(0, 6), Limits(4, 6)),
    ],
)
def test_limits_add_up(one: Limits, two: Limits, both: Limits) -> None:
    assert one.tightened(two) == both == two.tightened(one)
