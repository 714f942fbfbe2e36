"""What a summary may not lose silently, whoever wrote it."""

from __future__ import annotations

import re
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.history.domain.extract import LONGEST, Fact, Kind, facts, pieces, words
from services.history.domain.personal import tells
from services.history.domain.recap import MAX_BYTES, MAX_DROPPED, MAX_SENTENCES, merge, missing
from services.history.domain.sessions import Author, Message
from services.history.domain.summary import Dropped, Line, Summary
from services.history.domain.telling import MAX_SENTENCES as MAX_TELLING
from services.history.domain.telling import extract, findings

_places = count(1)


def say(text: str, author: Author = Author.USER) -> Message:
    place = next(_places)
    return Message(
        f"msg_{place}", "ses", author, text, "run", partial=False, place=place, create_time=0
    )


def details(text: str) -> set[str]:
    return {fact.key for piece in pieces(text) for fact in facts(piece) if fact.kind is Kind.DETAIL}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("It weighs 12 kg.", {"12 kg"}),
        ("It fell to -3 °C.", {"-3 °"}),
        ("That is $1,200.50 in all.", {"$ 1,200.50"}),
        ("It ships on 5 May 2024 at 14:30.", {"5 may", "may 2024", "14:30"}),
        ("Due 2024-05-01.", {"2024-05-01"}),
        ("I met Ada Lovelace there.", {"ada lovelace"}),
        ("Ada Lovelace called.", {"ada lovelace"}),
        ("See invoice INV-4711 please.", {"inv 4711"}),
        ("Write to ada@example.com.", {"ada example com"}),
        ("We need 12 boxes.", {"12 boxes"}),
    ],
)
def test_numbers_names_and_dates_are_found(text: str, keys: set[str]) -> None:
    assert keys <= details(text)


@pytest.mark.parametrize("text", ["Hello there.", "What a day it is", "", "I think so."])
def test_small_talk_has_nothing_to_lose(text: str) -> None:
    assert details(text) == set()


def test_decisions_and_questions_are_found() -> None:
    assert {fact.kind for fact in facts("We decided to wait.")} == {Kind.DECISION}
    assert {fact.kind for fact in facts("Who signs it?")} == {Kind.QUESTION}


@given(st.text(max_size=2_000))
def test_pieces_have_all_words_and_are_short(text: str) -> None:
    found = list(pieces(text))
    assert all(0 < len(piece) <= LONGEST for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


_WORDS = st.sampled_from(
    re.findall(
        r"\S+",
        "we it order weighs decided to use go with may ship on by the Ada Grace Lovelace Berlin km "
        "kg € boxes INV-4711 and then so",
    )
)
_NUMBERS = st.integers(-5_000, 5_000).map(str)
_ENDS = st.sampled_from([".", "?", "!", "\n", ","])
_SENTENCES = st.builds(
    lambda said, end: " ".join(said) + end,
    st.lists(_WORDS | _NUMBERS, min_size=1, max_size=14),
    _ENDS,
)
_TEXTS = st.lists(_SENTENCES, min_size=1, max_size=5).map(" ".join)
_TALKS = st.lists(st.tuples(_TEXTS, st.sampled_from(Author)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_TALKS, st.booleans(), _TEXTS), min_size=1, max_size=4))
def test_nothing_is_lost_silently(steps: list[tuple[list[tuple[str, Author]], bool, str]]) -> None:
    """Over any steps, by words alone or by a model that writes something else altogether."""
    summary, dropped, last = Summary(), tuple[Dropped, ...](), ""
    everything: list[Message] = []
    for talk, by_words, invented in steps:
        messages = [say(text, author) for text, author in talk]
        everything += messages
        draft = extract(summary, messages)
        if not by_words:
            line = Line(invented, (messages[0].message_id,))
            draft = Summary(overview=(line,), details=(line,), model="m")
        summary, dropped = merge(summary, dropped, messages, draft, last=last)
        last = messages[-1].message_id
    there = [line.text for line in summary.lines()]
    assert sum(len(text.encode()) for text in there) <= MAX_BYTES
    full = {each.message_id for each in dropped if len(each.sentences) >= MAX_SENTENCES}
    there += [sentence for each in dropped for sentence in each.sentences]
    said = "|".join(f" {' '.join(words(text))} " for text in there)
    for message in everything:
        for piece in pieces(message.text):
            for fact in facts(piece):
                if fact.kind is Kind.DETAIL and message.message_id not in full:
                    assert f" {fact.key} " in said


def test_what_a_model_leaves_out_is_quoted() -> None:
    message = say("The order weighs 12 kg. We agreed on Berlin. Who signs it?")
    line = Line("An order was discussed.", (message.message_id,))
    summary, dropped = merge(Summary(), (), [message], Summary(overview=(line,), model="m"))
    assert [each.text for each in summary.details] == ["The order weighs 12 kg."]
    assert [each.text for each in summary.decisions] == ["We agreed on Berlin."]
    assert [each.text for each in summary.open_questions] == ["Who signs it?"]
    assert (dropped, missing(summary, [message])) == ((), [])


def test_what_a_model_says_itself_is_not_quoted_besides() -> None:
    message = say("The order, as I said to you before, weighs 12 kg.")
    line = Line("Weight: 12 kg.", (message.message_id,))
    summary, _ = merge(Summary(), (), [message], Summary(details=(line,), model="m"))
    assert summary.details == (line,)


def test_a_model_that_forgets_the_summary_does_not_lose_it() -> None:
    old = Summary(decisions=(Line("Use PostgreSQL.", ("msg_a",)),), model="m")
    summary, _ = merge(old, (), [say("ok")], Summary(model="m"))
    assert summary.decisions == old.decisions


def test_an_answered_question_is_open_no_more() -> None:
    asked, answer = say("Who signs it?"), say("She does.", Author.AGENT)
    both, _ = merge(Summary(), (), [asked, answer], Summary())
    first, _ = merge(Summary(), (), [asked], Summary())
    second, _ = merge(first, (), [answer], Summary(), last=asked.message_id)
    assert [*both.open_questions, *second.open_questions] == []
    assert first.open_questions
    # Its numbers are kept all the same.
    asked = say("Is it 12 kg?")
    first, _ = merge(Summary(), (), [asked], Summary())
    second, _ = merge(first, (), [answer], Summary(), last=asked.message_id)
    assert [line.text for line in second.details] == ["Is it 12 kg?"]
    asked = say("Who signs it?")
    evaded, _ = merge(Summary(), (), [asked, say("I do not know.", Author.AGENT)], Summary())
    assert [line.text for line in evaded.open_questions] == ["Who signs it?"]


def test_what_does_not_fit_is_listed_and_the_list_is_bounded() -> None:
    messages = [say(f"Item {at} costs {at}00 euros, and so on{'.' * 200}") for at in range(400)]
    summary, dropped = merge(Summary(), (), messages, Summary())
    assert sum(len(line.text.encode()) for line in summary.lines()) <= MAX_BYTES
    assert len(dropped) == MAX_DROPPED
    kept = {line.message_ids[0] for line in summary.details}
    assert messages[-1].message_id in kept
    assert kept.isdisjoint(each.message_id for each in dropped)
    assert all(each.sentences for each in dropped)


_WEATHER = [
    "Yesterday everybody enjoyed lunch.",
    "Rain fell over the whole valley.",
    "Cats sleep most afternoons.",
    "Okay then.",
    "Some birds sing before sunrise.",
]


def test_the_overview_is_of_what_the_talk_is_about() -> None:
    talk = ["The ledger database is slow.", "The ledger database needs an index.", *_WEATHER]
    messages = [say(each) for each in talk]
    overview = extract(Summary(), messages).overview
    assert len(overview) == MAX_TELLING
    assert [line.text for line in overview if "ledger" in line.text] == talk[1:2]
    assert "Okay then." not in [line.text for line in overview]
    assert {line.message_ids[0] for line in overview} <= {each.message_id for each in messages}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("My name is Ada.", True),
        ("I prefer short answers.", True),
        ("We use PostgreSQL.", True),
        ("Our fiscal year is the calendar year.", True),
        ("We decided to wait.", True),
        ("I'm a nurse.", True),
        ("I'm not sure.", False),
        ("My question is another.", False),
        ("Do we use PostgreSQL?", False),
        ("If my name is Ada, say so.", False),
        ("The sky is blue.", False),
    ],
)
def test_only_lasting_statements_are_for_memory(sentence: str, *, expected: bool) -> None:
    assert tells(sentence) is expected
    assert bool(findings([say(sentence)])) is expected
    assert not findings([say(sentence, Author.AGENT)])


def test_facts_compare_by_what_they_say() -> None:
    assert Fact(Kind.DETAIL, "12 kg") in facts("it weighs 12kg")
