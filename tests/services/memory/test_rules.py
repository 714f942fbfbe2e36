"""What is the same, what contradicts, how branches merge, what is kept: pure rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.memory.domain.history import Made, judge
from services.memory.domain.likeness import contradict, joined, marks, merged, same
from services.memory.domain.merging import Side, merge
from services.memory.domain.ranking import rank
from services.memory.domain.tree import Change
from services.memory.domain.values import (
    Content,
    Kind,
    Origin,
    Sensitivity,
    Version,
    Wanted,
    faded,
    key_of,
    memory_of,
    used,
)
from services.memory.domain.words import Said, likeness
from services.runtime.ids import new_id

LONG = (
    "The laboratory on the second floor keeps its samples in the large freezer behind the door, "
    "and whoever takes one writes name, day and reason into the book that lies on the table by it."
)


def about(text: str, **more: Any) -> Content:
    return Content(text=text, **{"subject": "it", **more})


def test_the_same_words_are_the_same_whatever_their_case_and_marks() -> None:
    assert same(about("The sky is blue."), about("the SKY is  blue"), 1.0)
    assert not same(about("The sky is blue."), about("The sea is blue."), 0.9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LONG, LONG.replace("second", "third").replace("large", "small")),
        (LONG + " It holds 40 boxes.", LONG + " It holds 41 boxes."),
        (LONG + " It is locked.", LONG + " It is not locked."),
        (LONG + " It holds two boxes.", LONG + " It holds three boxes."),
        (LONG + " Ask for room A12.", LONG + " Ask for room A13."),
        (LONG + " You can enter.", LONG + " You can't enter."),
    ],
)
def test_other_numbers_and_negations_are_never_merged(first: str, second: str) -> None:
    assert not same(about(first), about(second), 0.9)


def test_what_is_nearly_the_same_is_merged_and_is_found_by_its_marks() -> None:
    near = LONG.replace("large freezer", "big freezer")
    assert likeness(Said.of(LONG), Said.of(near)) >= 0.85
    assert same(about(LONG), about(near), 0.85)
    assert not same(about(LONG), about(near), 1.0)
    assert marks(about(LONG)) & marks(about(near))


@pytest.mark.parametrize(
    "other",
    [
        {"kind": Kind.EXPERIENCE},
        {"person": "usr_2"},
        {"valid_until": 5},
        {"subject": "that"},
        {"attributes": {"colour": ("text", "red")}},
    ],
)
def test_what_is_about_something_else_is_not_the_same(other: dict[str, Any]) -> None:
    old = about("The door is open", attributes={"colour": ("text", "blue")})
    assert not same(old, replace(old, **other), 0.9)


def test_merging_keeps_the_text_and_what_both_know() -> None:
    old = about("a", confidence=0.5, provenance=(Origin("run", "run_1", 1),))
    new = about(
        "A!",
        confidence=0.7,
        sensitivity=Sensitivity.CONFIDENTIAL,
        attributes={"n": ("integer", 1)},
        provenance=(Origin("run", "run_1", 9), Origin("person", "usr_1", 2)),
    )
    kept = merged(old, new)
    assert (kept.text, kept.confidence, kept.sensitivity) == ("a", 0.7, Sensitivity.CONFIDENTIAL)
    assert kept.attributes == {"n": ("integer", 1)}
    assert kept.provenance == (Origin("run", "run_1", 1), Origin("person", "usr_1", 2))
    assert merged(kept, new) == kept


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The total of the invoice is 40 euros", "The total of the invoice is 50 euros"),
        ("The server room is locked at night", "The server room is not locked at night"),
        ("The colour of the door is blue", "The colour of the door is light green"),
        ("Ada's office is upstairs", "Ada's office is downstairs"),
        ("It ships in two weeks", "It ships in three weeks"),
    ],
)
def test_what_says_otherwise_about_the_same_subject(first: str, second: str) -> None:
    one, other = about(first), about(second)
    assert contradict(one, other)
    assert contradict(other, one)
    assert marks(one) & marks(other)
    assert not contradict(one, replace(other, subject="that"))
    assert not contradict(one, replace(other, subject=""))
    assert not contradict(one, replace(other, kind=Kind.EXPERIENCE))
    assert not contradict(replace(one, valid_until=5), replace(other, valid_from=5))
    assert contradict(replace(one, valid_until=6), replace(other, valid_from=5))


def test_other_attributes_contradict_and_more_attributes_do_not() -> None:
    one = about("first", attributes={"year": ("integer", 2024)})
    assert contradict(one, about("second", attributes={"year": ("integer", 2025)}))
    assert not contradict(one, about("second", attributes={"month": ("integer", 5)}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Ada is tall", "Ada is a doctor"),
        ("The door is blue", "The door is blue"),
        ("The invoice came on 3 May by mail", "There are 7 people who may sign orders"),
    ],
)
def test_what_is_only_said_besides_is_no_contradiction(first: str, second: str) -> None:
    assert not contradict(about(first), about(second))


@given(st.text(max_size=200))
def test_any_text_has_marks_and_is_the_same_as_itself(text: str) -> None:
    content = about(text)
    assert marks(content) == marks(content)
    assert same(content, content, 0.9)
    assert not contradict(content, content)


sides = st.dictionaries(
    st.integers(0, 9).map(lambda n: bytes([n]) * 16),
    st.none() | st.integers(0, 2).map(lambda n: bytes([n]) * 20),
    max_size=10,
)


def _held(*layers: dict[bytes, bytes | None]) -> dict[bytes, bytes]:
    whole: dict[bytes, bytes | None] = {}
    for layer in layers:
        whole |= layer
    return {key: value for key, value in whole.items() if value is not None}


def _changes(first: dict[bytes, bytes], second: dict[bytes, bytes]) -> dict[bytes, Change]:
    return {
        key: Change(key, first.get(key), second.get(key))
        for key in first.keys() | second.keys()
        if first.get(key) != second.get(key)
    }


@settings(max_examples=200)
@given(sides, sides, sides, st.booleans())
def test_a_merge_is_that_of_dictionaries(
    base: dict[bytes, bytes | None],
    left: dict[bytes, bytes | None],
    right: dict[bytes, bytes | None],
    theirs_win: bool,
) -> None:
    was, ours, theirs = _held(base), _held(base, left), _held(base, right)
    own, other = _changes(was, ours), _changes(was, theirs)
    _, clashes = merge(own, other, {})
    fought = {key for key in own.keys() & other.keys() if own[key].after != other[key].after}
    assert {each.key for each in clashes} == fought
    side = Side.THEIRS if theirs_win else Side.OURS
    changes, left_over = merge(own, other, dict.fromkeys(fought, side))
    assert not left_over
    expected = {
        key: (theirs if key in other and (key not in own or theirs_win) else ours).get(key)
        for key in was.keys() | ours.keys() | theirs.keys()
    }
    assert _held(ours, changes) == {k: v for k, v in expected.items() if v is not None}  # type: ignore[arg-type]


def test_keys_sort_as_ids_and_come_back() -> None:
    ids = sorted(new_id("mem") for _ in range(50))
    found = [key_of(each) for each in ids]
    assert found == sorted(key for key in found if key)
    assert [memory_of(key) for key in found if key] == ids
    for bad in ("", "mem_", "ses_" + "0" * 26, "mem_" + "z" * 26, "mem_" + "u" * 26, "mem_語" * 9):
        assert key_of(bad) is None


def test_strength_halves_and_rises_with_use() -> None:
    assert faded(0.8, 0, 10, 10) == pytest.approx(0.4)
    assert faded(0.8, 5, 0, 10) == 0.8
    assert used(0.5) == 0.75
    assert used(1.0) == 1.0


def test_a_version_is_named_by_what_it_says() -> None:
    one = Version("mem_1", about("a"), 1, 1)
    assert one.version_id == replace(one, update_time=9).version_id
    assert one.version_id != one.saying(about("b"), 1).version_id
    assert Content.from_json(one.content.to_json()) == one.content


def test_sources_are_bounded_and_each_is_there_once() -> None:
    many = [Origin("run", f"run_{n}", n) for n in range(150)]
    assert len(joined(many, many)) == 100
    assert joined(many[:2], many[1:3]) == tuple(many[:3])


def test_ranking_prefers_rare_words_and_leaves_out_the_rest() -> None:
    texts = {"a": "the blue door", "b": "the red door", "c": "the quick fox"}
    assert list(rank("blue door", texts)) == ["a", "b"]
    assert rank("", texts) == {}
    assert rank("door", {}) == {}


def test_what_a_filter_takes() -> None:
    content = about("x", valid_from=5, valid_until=9, attributes={"n": ("integer", 1)})
    assert Wanted(valid_at=5).takes(content)
    assert not Wanted(valid_at=9).takes(content)
    assert Wanted().takes(content)
    assert not Wanted(attributes={"n": ("truth", True)}).takes(content)
    assert not Wanted(max_sensitivity=Sensitivity.PUBLIC).takes(content)


def _history(*lines: str) -> dict[str, Made]:
    """Commits from lines such as `c a b`: a commit and its parents, made one after the other."""
    found = {}
    for time, line in enumerate(lines, 1):
        name, *parents = line.split()
        found[name] = Made(name, tuple(parents), time, "", pruned=False)
    return found


def test_retention_keeps_what_names_show_and_what_was_current_since() -> None:
    # main: a b c d e; x was made at b, and y after it; z was left behind.
    history = _history("a", "b a", "x b", "c b", "y x", "z a", "d c", "e d")
    verdict = judge(history, "e", ["e", "y"], horizon=8)
    assert verdict.gone == {"z"}
    assert verdict.whole == {"e", "d", "y", "b"}
    assert verdict.pruned == {"a", "c", "x"}
    assert judge(history, "e", ["e", "y", "a"], horizon=None).whole == set(history) - {"z"}
    assert judge(history, "e", ["e", "y", "a"], horizon=8).pruned == {"c", "x"}
