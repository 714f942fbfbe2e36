"""The measures against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.quality.judged import Judgement
from tests.quality.measures import (
    Passage,
    Wanted,
    folded,
    gains,
    holds,
    ndcg,
    recall,
    reciprocal_rank,
    share,
    supports,
    wanted,
)

# Three quotes, of which `a` has the first two; no passage has the fourth.
SOME = Wanted([3, 1, 2, 2], {"a": [0, 1], "b": [2]})


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("Claims are filed\n  within 45\tdays.", "filed within 45 days"),
        ("25 | 1.8 | 0.6", "| 25 | 1.8 | 0.6 |"),
        ("name | price\nHT-PS | polymer (set) | 198.00 | 8", "HT-PS,polymer (set),198.00,8"),
        ("Use event_id to recognise duplicates", "Use `event_id` to recognise duplicates"),
        ("It **must** not", "it must not"),
        ("das Gerät läuft", "Das Gerät läuft"),
    ],
)
def test_marks_and_white_space_make_no_difference(text: str, quote: str) -> None:
    assert holds(text, quote)
    assert holds(quote, text) == (folded(text) == folded(quote))


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("within 145 days", "within 45 days"),
        ("within 45 days", "within 45 day"),
        ("within days 45", "within 45 days"),
        ("anything", "…"),
        ("", "within"),
    ],
)
def test_other_words_do(text: str, quote: str) -> None:
    assert not holds(text, quote)


def test_the_share_is_of_the_longest_run() -> None:
    assert share("the pump stops. A", "the pump stops at night") == pytest.approx(3 / 5)
    assert share("at night the pump", "the pump stops at night") == pytest.approx(2 / 5)
    assert share("anything", "") == 0


def test_quotes_are_looked_for_in_the_text_then_below_headings_then_in_part() -> None:
    passages = {
        "d": [
            Passage("1", "d", "The pump stops at", title="Pumps", headings=("Night mode",)),
            Passage("2", "d", "night and starts at six.", title="Pumps", headings=("Night mode",)),
        ],
        "e": [Passage("3", "e", "The pump stops at night.")],
    }

    def held(quote: str, document: str = "d") -> dict[str, list[int]]:
        found = wanted([Judgement(document, quote, 3)], passages)
        return {key: list(each) for key, each in found.held.items()}

    assert held("night and starts") == {"2": [0]}
    assert held("night mode") == {"1": [0], "2": [0]}
    assert held("The pump stops at night") == {"1": [0]}
    assert held("The pump stops at night", "e") == {"3": [0]}
    assert held("A valve stops at noon") == {}
    assert held("The pump", "absent") == {}
    assert wanted([Judgement("absent", "The pump", 3)], passages).lost == [0]


def test_a_quote_counts_once() -> None:
    assert gains(["x", "a", "b", "a"], SOME) == [0, 3, 2, 0]
    assert gains([], SOME) == []
    twice = Wanted([2], {"a": [0], "b": [0]})
    assert gains(["b", "a"], twice) == [2, 0]
    assert ndcg(["b"], twice) == 1


def test_ndcg_is_what_the_formula_says() -> None:
    # What would be best: `a` (3), `b` (2), and the lost quote (2).
    ideal = 7 + 3 / math.log2(3) + 3 / 2
    assert ndcg(["a", "b"], SOME) == pytest.approx((7 + 3 / math.log2(3)) / ideal)
    assert ndcg(["b", "x", "a"], SOME) == pytest.approx((3 + 7 / 2) / ideal)
    assert ndcg(["a", "b"], Wanted([3, 2], {"a": [0], "b": [1]})) == 1
    assert ndcg(["x"] * 10 + ["a"], SOME) == 0
    assert ndcg(["a"], Wanted([])) == 0


def test_recall_is_of_useful_quotes() -> None:
    assert recall(["a"], SOME) == pytest.approx(1 / 3)
    assert recall(["a", "b"], SOME) == pytest.approx(2 / 3)
    assert recall(["a", "b"], SOME, depth=1) == pytest.approx(1 / 3)
    assert recall(["a"], Wanted([1], {"a": [0]})) == 0


def test_the_reciprocal_rank_is_of_the_first_useful_passage() -> None:
    assert reciprocal_rank(["x", "b", "a"], SOME) == 0.5
    assert reciprocal_rank(["x"], SOME) == 0
    assert reciprocal_rank(["a", "b"], Wanted([1, 2], {"a": [0], "b": [1]})) == 0.5


def test_a_quote_supports_what_it_holds_or_is_part_of() -> None:
    assert supports("The pump stops.", "From passage 1: “The pump\nstops.”")
    assert supports("The pump stops. It is night.", "the pump stops")
    assert not supports("The pump stops.", "The pump starts.")
