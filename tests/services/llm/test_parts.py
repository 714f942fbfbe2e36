"""The small parts of llm: what is known of the last minutes, classes, forms, schemas."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from plexus.agents.v1 import run_pb2

from services.llm.classifying import TaskClassifier, packaged
from services.llm.convert.messages import schema_of
from services.llm.domain.generation import AnswerFormat, Classifier, Message, Model, Prompt, Role
from services.llm.domain.routing import Capability
from services.llm.formats import FormatCheck, asking_again, fitted, unfenced
from services.llm.lately import Lately, Record
from services.runtime.errors import InvalidRequest
from services.runtime.resilience.breaker import Breaker, State, Tuning


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_model_of_which_nothing_is_known() -> None:
    figures = Record(Clock()).figures()
    assert (figures.calls, figures.success_rate, figures.mean_cost) == (0, 1.0, 0)
    assert figures.first_token_p50 is None
    assert not Record(Clock()).open


def test_what_is_older_than_five_minutes_is_forgotten() -> None:
    clock = Clock()
    record = Record(clock)
    record.began(0.1)
    record.ended(good=True, tokens=50, seconds=2.0, cost=30)
    clock.now += 200
    record.began(10.0)
    record.ended(good=False, tokens=0, seconds=0.0, cost=10)
    figures = record.figures()
    assert (figures.calls, figures.success_rate, figures.mean_cost) == (2, 0.5, 20)
    assert figures.tokens_per_second == 25
    clock.now += 150
    figures = record.figures()
    assert (figures.calls, figures.success_rate) == (1, 0.0)
    assert figures.first_token_p50 == pytest.approx(10, rel=0.2)
    clock.now += 200
    assert record.figures().calls == 0


@given(st.lists(st.floats(0.002, 100), min_size=1, max_size=50))
def test_quantiles_are_within_a_fifth(times: list[float]) -> None:
    record = Record(Clock())
    for each in times:
        record.began(each)
    middle = sorted(times)[-(-len(times) // 2) - 1]
    found = record.figures().first_token_p50
    assert found is not None
    assert middle <= found <= middle * 1.2001


def test_records_are_bounded_and_those_used_last_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.llm.lately._MAX_MODELS", 2)
    lately = Lately(Clock())
    first = lately.of("one", "m")
    lately.of("two", "m")
    assert lately.of("one", "m") is first
    lately.of("three", "m")
    assert lately.of("one", "m") is first


def test_a_breaker_opens_after_so_many_failures_in_a_row() -> None:
    clock = Clock()
    breaker = Breaker(clock, Tuning(least=100, in_a_row=3))

    def call(good: bool) -> None:
        ticket = breaker.enter()
        assert ticket is not None
        breaker.leave(ticket, good)

    for good in (False, False, True, False, False):
        call(good)
    assert not breaker.blocked()
    call(good=False)
    assert breaker.state is State.OPEN
    assert breaker.enter() is None
    clock.now += breaker.blocked()
    call(good=True)
    call(good=False)
    assert not breaker.blocked()


@pytest.fixture(scope="module")
def classifier() -> TaskClassifier:
    """With the packaged examples."""
    return TaskClassifier()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Summarise this: it rained all day.", "summarisation"),
        ("Please summarize the following report", "summarisation"),
        ("What is wrong here?\n```\nx = [\n```", "code"),
        ("Look at main.py, it fails", "code"),
        ("Why: function sum(a, b) { return a }", "code"),
        ("Extract all dates from this letter", "extraction"),
    ],
)
def test_rules_decide_what_is_plain(classifier: TaskClassifier, text: str, name: str) -> None:
    prompt = Prompt([Message(Role.SYSTEM, "```"), Message(Role.USER, text)])
    assert classifier.classify(prompt) == (name, Classifier.RULES)


# None of them is among the examples.
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Write a unit test for this JavaScript function", "code"),
        ("Why does my SQL query return duplicate rows", "code"),
        ("Write a poem about autumn and the sea", "creative"),
        ("Write a short story about a dragon", "creative"),
        ("Compare the advantages and risks of both plans", "analysis"),
        ("What is the capital of Peru", "chat"),
        ("Give me the gist of this report", "summarisation"),
        ("Return the names and dates in the text as a list", "extraction"),
        ("qwertz asdf", "chat"),
    ],
)
def test_the_trained_one_decides_the_rest(classifier: TaskClassifier, text: str, name: str) -> None:
    assert text not in {each for _, each in packaged()}
    assert classifier.classify(Prompt([Message(Role.USER, text)])) == (name, Classifier.TRAINED)


def test_no_rule_takes_english_for_code(classifier: TaskClassifier) -> None:
    for text in ("What is the function of the heart?", "The class of 1999 will import wine."):
        assert classifier.classify(Prompt([Message(Role.USER, text)]))[1] is Classifier.TRAINED


def test_a_form_that_is_asked_for_is_extraction(classifier: TaskClassifier) -> None:
    prompt = Prompt([Message(Role.USER, "Hello there")], answer_format=AnswerFormat())
    assert classifier.classify(prompt) == ("extraction", Classifier.RULES)


def test_a_model_without_forms_is_told_in_words() -> None:
    prompt = Prompt([Message(Role.USER, "Hi")], answer_format=AnswerFormat("n", {"type": "object"}))
    able = Model("p/m", "p", 1000, capabilities=frozenset({Capability.JSON}))
    assert fitted(prompt, able) is prompt
    told = fitted(prompt, Model("p/m", "p", 1000))
    assert told.answer_format is None
    assert '{"type": "object"}' in told.messages[0].text
    again = asking_again(prompt, "no", ["it is not JSON"])
    assert [each.text for each in again.messages[1:2]] == ["no"]
    assert "it is not JSON" in again.messages[2].text


@pytest.mark.parametrize(
    ("text", "plain"),
    [("```json\n{}\n```", "{}"), (" {} ", "{}"), ("```\n{}\n```", "{}"), ("```", "```")],
)
def test_fences_are_taken_off(text: str, plain: str) -> None:
    assert unfenced(text) == plain


def test_problems_name_their_places_and_are_few() -> None:
    schema = {"type": "object", "properties": {"a": {"items": {"type": "integer"}}}}
    check = FormatCheck(AnswerFormat("x", schema))
    assert check.problems('{"a": [1, 2]}') == []
    (problem,) = check.problems('{"a": [1, "x"]}')
    assert problem.startswith("a/1: ")
    assert len(check.problems(json.dumps({"a": ["x"] * 50}))) == 10
    for text in ("", "[]", "1", "{" * 10_000):
        assert FormatCheck(AnswerFormat()).problems(text)


def test_a_message_is_a_schema_that_its_own_json_fits() -> None:
    check = FormatCheck(AnswerFormat("Run", schema_of("plexus.agents.v1.Run")))

    run = run_pb2.Run(run_id="run_1", state=run_pb2.RUN_STATE_FAILED, last_sequence=5)
    run.failure.message = "no"
    run.create_time.GetCurrentTime()
    text = json_format.MessageToJson(run, preserving_proto_field_name=True)
    assert check.problems(text) == []
    assert check.problems('{"run_id": 5}')
    assert check.problems('{"nobody_knows": 5}')
    for name in ("plexus.agents.v1.Nothing", "google.protobuf.Struct", "no name"):
        with pytest.raises(InvalidRequest):
            schema_of(name)
