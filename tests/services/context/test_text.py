"""Words, sentences, and what stands behind them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import snowballstemmer  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from services.context.domain.ranking import Signal, fuse
from services.context.text import bm25
from services.context.text.attribution import attribute
from services.context.text.highlights import highlights
from services.context.text.likeness import asked_for, repeats, speaks_of
from services.context.text.quoting import quote
from services.context.text.sentences import sentences
from services.context.text.support import ENOUGH, Sources, said
from services.context.text.words import stem, terms, words

TEXTS = st.text(max_size=200)
RENT = (
    "The rent is due on the third of each month. It was not raised in 2024.",
    "Payment goes to Ada Lovelace. She confirms every transfer within 14 days.",
)


@given(TEXTS)
def test_words_stand_where_they_say(text: str) -> None:
    last = 0
    for word in words(text):
        assert 0 <= word.start < word.end <= len(text)
        assert word.start >= last
        last = word.start
        assert word.text


_PARTS = (("quaver", "ization"), ("zomb", "fulness"), ("glim", "ational"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The invoices were paid", ["invoic", "paid"]),
        ("Die Kündigungen der Mieter sind nicht gültig", ["kundig", "miet", "gultig"]),
        ("東京都", ["東京", "京都"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("naïve Ærø", ["naïv", "ærø"]),
        ("", []),
    ],
)
def test_terms_are_stems_by_language(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_threads_do_not_get_each_others_stems() -> None:
    # Made up, so that no other test has asked for them.
    asked = [f"{head}{number}ing{tail}s" for number in range(400) for head, tail in _PARTS]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(stem, asked))
    finally:
        sys.setswitchinterval(usual)
    alone = snowballstemmer.stemmer("english")
    assert found == [alone.stemWord(each) for each in asked]


def test_a_query_finds_its_language_without_its_commonest_words() -> None:
    document = bm25.document("Die Kündigungen der Mieter sind nicht gültig")
    assert set(bm25.query("Kündigung Mieter").indices) & set(document.indices)
    assert bm25.query("to be or not to be").indices


def test_more_of_a_word_weighs_more_and_length_less() -> None:
    (once,) = bm25.document("rent").values
    (twice,) = bm25.document("rent rent").values
    long = bm25.document("rent " + " ".join(f"word{n}" for n in range(200)))
    assert max(long.values) < once < twice < bm25.K1 + 1


@given(TEXTS)
def test_sentences_are_apart_and_whole(text: str) -> None:
    last = 0
    for span in sentences(text):
        assert last <= span.start < span.end <= len(text)
        assert span.end - span.start <= 600
        last = span.end


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "Dr. Smith paid 3.5 euros. J. Doe did not.",
            ["Dr. Smith paid 3.5 euros.", "J. Doe did not."],
        ),
        ("It is so. [1] [2] And so. [3]", ["It is so. [1] [2]", "And so. [3]"]),
        ("これは文です。次の文。", ["これは文です。", "次の文。"]),
        ("First\n\nSecond", ["First", "Second"]),
        ("A list:\n- one\n- two", ["A list:", "- one", "- two"]),
        ("...", []),
    ],
)
def test_sentences_end_where_they_end(text: str, expected: list[str]) -> None:
    assert [text[each.start : each.end] for each in sentences(text)] == expected


@pytest.mark.parametrize(
    ("sentence", "supported"),
    [
        ("The rent is due on the third of the month.", True),
        ("Rent: due each month, on the third.", True),
        ("The rent is not due on the third of the month.", False),
        ("The rent was not raised in 2024.", True),
        ("The rent was raised in 2024.", False),
        ("The rent was not raised in 2025.", False),
        ("She confirms transfers within 14 days.", True),
        ("Payment goes to Charles Lovelace.", False),
        ("The rent is due on the fifth of each month.", False),
        ("The rent is due on the 3rd of each month.", True),
        ("She confirms transfers within fourteen weeks and 30 days.", False),
        ("The landlord lives in Paris with his dog.", False),
    ],
)
def test_numbers_and_denials_must_agree(sentence: str, supported: bool) -> None:
    assert (Sources(RENT).best(said(sentence), ENOUGH) is not None) is supported


def test_marks_are_cited_where_something_supports_them() -> None:
    text = "The rent is due on the third [1]. She confirms it within 14 days. [2] Cats fly. [1] [7]"
    found = attribute(text, RENT)
    assert [(each.source_index, each.quote) for each in found] == [
        (0, "The rent is due on the third of each month."),
        (1, "She confirms every transfer within 14 days."),
    ]
    assert text[found[0].cited_in.start : found[0].cited_in.end].endswith("third [1].")


def test_quotes_are_found_to_the_letter() -> None:
    text = "From passage 2: “Payment goes to Ada Lovelace.”\n(offline/extractive)"
    (found,) = attribute(text, RENT)
    assert (found.source_index, found.quote) == (1, "Payment goes to Ada Lovelace.")
    assert text[found.cited_in.start : found.cited_in.end] == "Payment goes to Ada Lovelace."
    # The number may be of another counting; the words are not.
    (found,) = attribute(text.replace("passage 2", "passage 9"), RENT)
    assert found.source_index == 1


def test_sentences_without_marks_need_strong_support() -> None:
    (found,) = attribute("Yes! Payment goes to Ada Lovelace. The weather is fine.", RENT)
    assert found.quote == "Payment goes to Ada Lovelace."


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_citations_are_within_their_texts(text: str, sources: list[str]) -> None:
    for each in attribute(text, sources):
        assert 0 <= each.cited_in.start < each.cited_in.end <= len(text)
        assert sources[each.source_index][each.span.start : each.span.end] == each.quote


def test_highlights_are_of_equal_stems() -> None:
    text = "He paid the invoices; an Invoice is paid."
    spans = highlights("invoice payments", text)
    assert [text[each.start : each.end] for each in spans] == ["invoices", "Invoice"]


def test_small_talk_asks_for_nothing() -> None:
    assert not asked_for("Hello, how are you?")
    assert not asked_for("Thanks, good night!")
    asked = asked_for("When is the rent due?")
    assert speaks_of(asked, RENT[0])
    assert not speaks_of(asked, RENT[1])


def test_what_says_the_same_repeats() -> None:
    known = [frozenset(terms(RENT[0]))]
    assert repeats("Each month the rent is due on the third.", known)
    assert not repeats(RENT[1], known)


def test_quotes_speak_of_what_was_asked() -> None:
    chosen = quote(RENT, asked_for("When is the rent due?"), 1)
    (only,) = chosen
    assert RENT[only.source_index][only.span.start : only.span.end].startswith("The rent is due")
    assert len(quote(RENT, frozenset(), 3)) == 3
    assert quote([], frozenset(), 3) == []


@given(
    st.dictionaries(
        st.sampled_from(list(Signal)),
        st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1)), max_size=8),
    )
)
def test_fusing_keeps_everything_once_and_what_is_first_everywhere_first(
    rankings: dict[Signal, list[tuple[str, float]]],
) -> None:
    fused = fuse(rankings)
    assert {each.key for each in fused} == {key for each in rankings.values() for key, _ in each}
    assert len({each.key for each in fused}) == len(fused)
    assert [each.score for each in fused] == sorted((each.score for each in fused), reverse=True)
    firsts = {ranking[0][0] for ranking in rankings.values() if ranking}
    if len(firsts) == 1 and all(rankings.values()):
        assert fused[0].key in firsts
