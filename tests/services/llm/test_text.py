"""Sentences, words and weights: the parts that the offline model stands on."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm.domain.generation import Delta, cut_to_tokens, estimate_tokens
from services.llm.providers.buffer import AnswerBuffer
from services.llm.providers.ranking import Sentence, rank
from services.llm.providers.reading import Want, read
from services.llm.providers.sentences import split_sentences
from services.llm.providers.sse import BrokenStream, EventSplitter
from services.llm.providers.summary import summarise
from services.llm.providers.words import content, stem, words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met J. Doe. They spoke.", ["Dr. Smith met J. Doe.", "They spoke."]),
        (
            "It costs 3.50 euros. See example.com for more.",
            ["It costs 3.50 euros.", "See example.com for more."],
        ),
        ("Wait... what? He said “Go.” She went.", ["Wait... what?", "He said “Go.”", "She went."]),
        ("Tea, e.g. green. Or Nr. 5.", ["Tea, e.g. green.", "Or Nr. 5."]),
        ("私は学生です。あなたは？はい！", ["私は学生です。", "あなたは？", "はい！"]),
        ("यह घर है। वह पेड़ है।", ["यह घर है।", "वह पेड़ है।"]),
        (
            "Title\n\nA line that is\nbroken to fit. Next.",
            ["Title", "A line that is broken to fit.", "Next."],
        ),
        ("- one\n- two\n* three", ["- one", "- two", "* three"]),
        ("1. Open the lid.\n2. Close it.", ["1. Open the lid.", "2. Close it."]),
        ("Price: 20\nSize: 30", ["Price: 20", "Size: 30"]),
        ("... !!! \n ???", []),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n。“”()…-:é保"), max_size=300))
def test_sentences_lose_and_invent_nothing(text: str) -> None:
    kept = "".join("".join(split_sentences(text)).split())
    source = "".join(text.split())
    at = 0
    for character in kept:
        at = source.index(character, at) + 1
    letters = [each for each in source if each.isalnum()]
    assert [each for each in kept if each.isalnum()] == letters


def test_a_stretch_without_an_end_is_cut() -> None:
    assert max(map(len, split_sentences("word " * 1000))) <= 600
    assert "".join(split_sentences("x" * 1501)) == "x" * 1501


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't STOP, naïve Straße", ["don", "t", "stop", "naïve", "strasse"]),
        ("Cafe\u0301 ＡＢＣ", ["café", "abc"]),
        ("保修期x2年", ["保修", "修期", "x2", "年"]),
        ("हिन्दी", ["हिन्दी"]),
        ("a_b", ["a", "b"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_stems_meet() -> None:
    for group in ("live lives lived living", "warranty warranties", "stop stops stopped"):
        assert len({stem(each) for each in group.split()}) == 1, group
    assert stem("glass") == "glass"
    assert stem("gas") == "gas"


def test_coverage_counts_rare_words_more_and_unknown_ones_against() -> None:
    sentences = [Sentence(f"The plan number {n} is fine.", 0, 2 * n) for n in range(5)]
    sentences.append(Sentence("The premium plan is dear.", 1, 0))
    found = rank(content("premium plan"), sentences, number_wanted=False)
    assert found[0].index == 5
    assert found[0].coverage == 1
    assert found[1].coverage < 0.3
    assert rank(content("premium yacht"), sentences, number_wanted=False)[0].coverage == 0.5


def test_numbers_rank_higher_where_one_is_wanted() -> None:
    sentences = [
        Sentence("Acme was founded in 1987.", 0, 0),
        Sentence("Acme was founded in Linz.", 1, 0),
    ]
    question = content("When was Acme founded")
    assert rank(question, sentences, number_wanted=True)[0].index == 0
    assert rank(question, sentences, number_wanted=False)[0].index == 1


def test_a_summary_tells_nothing_twice_and_is_no_heading() -> None:
    sentences = [
        "Budget schools",
        "The budget for schools in Linz grows by ten percent.",
        "The budget for schools in Linz grows by ten percent now.",
        "Critics of the budget want more buses in the evening.",
        "It rained all day and nobody minded at all.",
    ]
    assert summarise(sentences, 1) == [1]
    assert summarise(sentences, 2) == [1, 3]
    heading = ["Schools grow", "Tea is sold here daily.", "Schools grow when towns grow too."]
    assert summarise(heading, 1) == [2]
    assert summarise(sentences, 9) == [0, 1, 2, 3, 4]
    assert summarise([], 3) == []


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Hello", Want.GREETING),
        ("Good morning, what can you do for me?", Want.ABOUT),
        ("What can you do about the leak?", Want.ANSWER),
        ("Thank you very much!", Want.THANKS),
        ("Could you please summarise this?", Want.SUMMARY),
        ("Give me a short summary of it", Want.SUMMARY),
        ("tl;dr", Want.SUMMARY),
        ("List the three most important points.", Want.SUMMARY),
        ("What are the points of failure?", Want.ANSWER),
        ("The overview is wrong.", Want.TO_TELL),
        ("tell me about the warranty", Want.ANSWER),
        ("warranty period", Want.ANSWER),
        ("What we sell is bread.", Want.TO_TELL),
        ("My name is Ada", Want.TO_TELL),
        ("谁是学生", Want.ANSWER),
        ("!", Want.NOTHING),
    ],
)
def test_what_a_message_wants(text: str, want: Want) -> None:
    assert read(text).want is want


def test_a_question_and_what_it_is_about_are_told_apart() -> None:
    reading = read("The lid is red. Which lid is red? The box is blue.")
    assert reading.question == "Which lid is red?"
    assert reading.passage == ("The lid is red.", "The box is blue.")
    assert read("Summarise in 3 sentences: One is here. Two is there.").size == 3


@given(st.text(max_size=50), st.integers(1, 20))
def test_a_cut_keeps_to_its_tokens(text: str, tokens: int) -> None:
    kept, cut = cut_to_tokens(text, tokens)
    assert text.startswith(kept)
    assert cut == (kept != text)
    assert estimate_tokens(kept) <= tokens


@given(
    st.lists(st.binary(max_size=20).filter(lambda each: not set(each) & set(b"\r\n"))),
    st.integers(1, 9),
)
def test_events_are_found_in_any_pieces(payloads: list[bytes], size: int) -> None:
    stream = b"".join(b"data: " + each + b"\r\n\r\n" for each in payloads)
    splitter = EventSplitter()
    found = []
    for at in range(0, len(stream), size):
        found += splitter.feed(stream[at : at + size])
    assert found == [each.strip() for each in payloads]


async def test_a_writer_far_ahead_waits_and_nothing_gets_lost() -> None:
    buffer = AnswerBuffer(10)
    buffer.put("12345")
    assert not buffer.full
    buffer.put("67890")
    ahead = asyncio.create_task(buffer.room())
    await asyncio.sleep(0)
    assert not ahead.done()
    assert await buffer.take() == Delta("1234567890")
    await ahead
    buffer.put("more")
    buffer.end(ValueError("broken"))
    # What came before the end is taken before it is told.
    assert await buffer.take() == Delta("more")
    with pytest.raises(ValueError, match="broken"):
        await buffer.take()


def test_a_line_has_a_bound() -> None:
    splitter = EventSplitter()
    with pytest.raises(BrokenStream):
        for _ in range(20):
            splitter.feed(b"x" * 100_000)
