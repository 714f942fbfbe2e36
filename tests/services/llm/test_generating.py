"""Answers: by whom, at what price, and what becomes of them when providers fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from services.llm.domain.generation import (
    AnswerFormat,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Started,
    Switched,
    Tool,
    ToolDelta,
)
from services.llm.domain.routing import Limits, Passed, Policy, Why
from services.runtime.errors import Aborted, AlreadyExists, PlexusError
from services.runtime.migrations import migrate
from tests.databases import KINDS, Databases
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.asking import text_of
from tests.services.llm.desk import ALICE, BOB, CHEAP, DEAR, MIGRATIONS, Desk, asked, calling, tried
from tests.services.llm.scripted_openai import ScriptedOpenAi

# The script's own count is 11 and 4.
COST_OF_SCRIPT = CHEAP.of(11, 4)


@pytest.fixture(params=KINDS)
async def desk(
    request: pytest.FixtureRequest, databases: Databases, tmp_path: Path
) -> AsyncIterator[Desk]:
    """Llm with two model servers, `one` and `two`."""
    database = (await databases.make(request.param)).of("llm")
    await migrate(database, "llm", MIGRATIONS)
    found = Desk(database, tmp_path / "journals")
    await found.upstream("one")
    await found.upstream("two", DEAR)
    await found.open()
    yield found
    await found.meter.drain(5)
    await found.tasks.stop()
    await found.stack.aclose()


def one(desk: Desk) -> ScriptedOpenAi:
    return desk.servers["one"]


def two(desk: Desk) -> ScriptedOpenAi:
    return desk.servers["two"]


async def test_an_answer_and_what_it_took(desk: Desk) -> None:
    events = await desk.answer(asked(model="one/tiny"))
    started, last = events[0], events[-1]
    assert isinstance(started, Started)
    assert (started.model, started.route, started.passed) == ("one/tiny", "", ())
    assert text_of(events) == "Hello, world."
    assert isinstance(last, Finished)
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.output_tokens) == (11, 4)
    assert last.usage.cost == COST_OF_SCRIPT
    assert await desk.total() == {
        "calls": 1,
        "failed_calls": 0,
        "input_tokens": 11,
        "output_tokens": 4,
        "cost": COST_OF_SCRIPT,
        "estimated_calls": 0,
    }
    assert await desk.usage(who=BOB) == [dict.fromkeys(await desk.total(), 0)]


@pytest.mark.parametrize(
    "broken",
    [scripts.status(500), scripts.status(429), scripts.cut(()), scripts.ends_early(())],
    ids=["500", "429", "cut", "ends"],
)
async def test_before_the_first_token_the_next_one_answers(
    desk: Desk, broken: scripts.Script
) -> None:
    one(desk).script = broken
    events = await desk.answer(asked(model=await desk.route("one", "two")))
    assert isinstance(events[0], Started)
    assert events[0].model == "two/tiny"
    assert events[0].passed == (Passed("one/tiny", Why.FAILED),)
    assert text_of(events) == "Hello, world."
    assert tried([one(desk), two(desk)]) == [1, 1]
    assert [row["model"] for row in await desk.usage("model")] == ["two/tiny"]


async def test_who_does_not_begin_in_time_is_passed(desk: Desk) -> None:
    one(desk).script = scripts.hang()
    route = await desk.route("one", "two", limits=Limits(max_first_token_ms=200))
    events = await desk.answer(asked(model=route))
    assert isinstance(events[0], Started)
    assert events[0].passed == (Passed("one/tiny", Why.TOO_SLOW),)
    await asyncio.wait_for(one(desk).last.gone.wait(), 2)


async def test_a_second_is_asked_where_the_first_is_slow_and_the_slower_is_cancelled(
    desk: Desk,
) -> None:
    one(desk).script = scripts.hang()
    route = await desk.route("one", "two", hedge_after_ms=100)
    events = await desk.answer(asked(model=route, key="k"))
    assert isinstance(events[0], Started)
    assert events[0].model == "two/tiny"
    await asyncio.wait_for(one(desk).last.gone.wait(), 2)
    # Without a key the first is waited for.
    two(desk).requests.clear()
    one(desk).script = scripts.good(pace=0.1)
    events = await desk.answer(asked(model=route))
    assert not two(desk).requests


async def test_half_an_answer_fails(desk: Desk) -> None:
    one(desk).script = scripts.cut()
    events = await desk.answer(asked(model=await desk.route("one", "two")))
    assert text_of(events) == "Hello, "
    assert isinstance(events[-1], Failed)
    assert events[-1].error.reason == "MODEL_UNAVAILABLE"
    assert not two(desk).requests
    total = await desk.total()
    assert (total["failed_calls"], total["output_tokens"]) == (1, 2)
    assert total["estimated_calls"] == 1


async def test_another_goes_on_where_the_caller_wants_it(desk: Desk) -> None:
    one(desk).script = scripts.cut()
    two(desk).script = scripts.good(["world", "."])
    route = await desk.route("one", "two")
    events = await desk.answer(asked(model=route, switch_midway=True))
    assert text_of(events) == "Hello, world."
    switched = next(each for each in events if isinstance(each, Switched))
    assert switched == Switched("two/tiny", Passed("one/tiny", Why.FAILED))
    assert isinstance(events[-1], Finished)
    last = two(desk).last.body["messages"][-2:]
    assert last[0] == {"role": "assistant", "content": "Hello, "}
    usage = events[-1].usage
    assert usage is not None
    assert usage.output_tokens == 2 + 4
    assert usage.cost == CHEAP.of(usage.input_tokens - 11, 2) + DEAR.of(11, 4)
    assert (await desk.total())["cost"] == usage.cost


async def test_nobody_answers(desk: Desk) -> None:
    one(desk).script = two(desk).script = scripts.status(503)
    with pytest.raises(PlexusError) as raised:
        await desk.answer(asked(model=await desk.route("one", "two")))
    assert raised.value.reason == "MODEL_UNAVAILABLE"
    # Three rounds, with pauses between them.
    assert tried([one(desk), two(desk)]) == [3, 3]
    total = await desk.total()
    assert (total["calls"], total["failed_calls"], total["cost"]) == (1, 1, 0)


async def test_a_provider_that_fails_is_left_alone(desk: Desk) -> None:
    one(desk).script = scripts.status(500)
    route = await desk.route("one", "two")
    for _ in range(10):
        await desk.answer(asked(model=route))
    assert len(one(desk).requests) == 8
    events = await desk.answer(asked(model=route))
    assert isinstance(events[0], Started)
    assert events[0].passed == (Passed("one/tiny", Why.CIRCUIT_OPEN),)


async def test_what_is_cancelled_is_entered_as_far_as_it_came(desk: Desk) -> None:
    one(desk).script = scripts.hang(("Hello, ", "you"))
    text = ""
    with calling(ALICE):
        async with aclosing(desk.generations.generate(asked(model="one/tiny"))) as events:
            async for event in events:
                text += event.text if isinstance(event, Delta) else ""
                if text == "Hello, you":
                    break
    await asyncio.wait_for(one(desk).last.gone.wait(), 2)
    total = await desk.total()
    assert (total["calls"], total["failed_calls"], total["output_tokens"]) == (1, 1, 3)


async def test_a_killed_process_leaves_nothing_out(desk: Desk) -> None:
    one(desk).script = scripts.hang(("Hello, ", "you"))
    with calling(ALICE):
        events = desk.generations.generate(asked(model="one/tiny"))
        text = ""
        while text != "Hello, you":
            event = await anext(events)
            text += event.text if isinstance(event, Delta) else ""
    await desk.die()
    await desk.open()
    async with asyncio.timeout(5):
        while len(list(desk.folder.iterdir())) > 1:
            await asyncio.sleep(0.05)
    total = await desk.total()
    assert (total["calls"], total["failed_calls"], total["output_tokens"]) == (1, 1, 3)
    await events.aclose()


async def test_a_repeat_gets_the_first_answer_without_the_model(desk: Desk) -> None:
    ask = asked(model="one/tiny", key="k1", digest="d")
    first = await desk.answer(ask)
    again = await desk.answer(ask)
    assert len(one(desk).requests) == 1
    assert isinstance(again[0], Started)
    assert again[0].repeated
    assert text_of(again) == text_of(first)
    assert again[-1] == first[-1]
    assert (await desk.total())["calls"] == 1
    with pytest.raises(AlreadyExists):
        await desk.answer(asked(model="one/tiny", key="k1", digest="other"))
    # Another tenant's key of the same name is another key.
    await desk.answer(ask, BOB)
    assert len(one(desk).requests) == 2


async def test_a_hundred_at_once_under_one_key_are_one_call(desk: Desk) -> None:
    one(desk).script = scripts.good(pace=0.02)
    ask = asked(model="one/tiny", key="k", digest="d")
    found = await asyncio.gather(*(desk.answer(ask) for _ in range(100)), return_exceptions=True)
    answered = [each for each in found if isinstance(each, list)]
    refused = [each for each in found if isinstance(each, Aborted)]
    assert len(answered) + len(refused) == 100
    assert answered
    assert {each.reason for each in refused} <= {"IN_PROGRESS"}
    assert len(one(desk).requests) == 1


async def test_a_call_that_failed_may_be_repeated(desk: Desk) -> None:
    one(desk).queue = [scripts.cut()]
    ask = asked(model="one/tiny", key="k", digest="d")
    assert isinstance((await desk.answer(ask))[-1], Failed)
    assert isinstance((await desk.answer(ask))[-1], Finished)


async def test_routes_choose_by_their_policies(desk: Desk) -> None:
    route = await desk.route("two", "one", policy=Policy.CHEAPEST)
    events = await desk.answer(asked(model=route))
    assert isinstance(events[0], Started)
    assert (events[0].model, events[0].policy) == ("one/tiny", Policy.CHEAPEST)
    dear = await desk.route("two", limits=Limits(max_cost=1))
    with pytest.raises(PlexusError) as raised:
        await desk.answer(asked(model=dear))
    assert "two/tiny would cost more than the limit" in raised.value.message


async def test_a_class_that_is_found_out_takes_its_route(desk: Desk) -> None:
    await desk.route("two", classes=("code",))
    for text, model in (("Fix this: ```x = 1```", "two/tiny"), ("Hello there", "one/tiny")):
        events = await desk.answer(asked(text))
        assert isinstance(events[0], Started)
        assert events[0].model == model
    events = await desk.answer(asked("Hello there", task_class="code"))
    assert isinstance(events[0], Started)
    assert (events[0].model, events[0].task_class) == ("two/tiny", "code")


async def test_functions_are_passed_on_in_pieces(desk: Desk) -> None:
    async def script(answer: scripts.Answer) -> None:
        await answer.begin()
        await answer.tool(0, "call_1", "weather", "")
        await answer.tool(0, arguments='{"city": ')
        await answer.tool(0, arguments='"Wien"}')
        await answer.chunk(finish="tool_calls")
        await answer.done()

    one(desk).script = script
    tool = Tool("weather", "Tells it.", {"type": "object"})
    events = await desk.answer(asked(model="one/tiny", tools=(tool,)))
    calls = [each for each in events if isinstance(each, ToolDelta)]
    assert calls[0] == ToolDelta(0, "call_1", "weather", "")
    assert "".join(each.arguments for each in calls) == '{"city": "Wien"}'
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.TOOL_CALLS
    sent = one(desk).last.body["tools"][0]["function"]
    assert sent == {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


async def test_an_answer_of_the_wrong_form_is_put_right_once(desk: Desk) -> None:
    one(desk).queue = [
        scripts.good(['{"n": ', '"x"}']),
        scripts.good(["```json\n", '{"n": 1}\n```']),
    ]
    wanted = AnswerFormat("number", SCHEMA)
    events = await desk.answer(asked(model="one/tiny", answer_format=wanted))
    assert text_of(events) == '{"n": 1}'
    asked_again = one(desk).requests[1].body["messages"]
    assert asked_again[-2]["content"] == '{"n": "x"}'
    assert "n: " in asked_again[-1]["content"]
    assert one(desk).last.body["response_format"]["json_schema"]["schema"] == SCHEMA
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.output_tokens) == (22, 8)


async def test_an_answer_of_the_wrong_form_twice_fails(desk: Desk) -> None:
    one(desk).script = scripts.good(["no JSON"])
    events = await desk.answer(asked(model="one/tiny", answer_format=AnswerFormat()))
    assert text_of(events) == ""
    assert isinstance(events[-1], Failed)
    assert events[-1].error.reason == "MODEL_BROKE_FORMAT"
    assert len(one(desk).requests) == 2


@pytest.mark.parametrize(
    "schema", [{"type": "nonsense"}, {"$ref": "https://example.com/x"}, {"properties": 3}]
)
async def test_a_schema_that_is_none_is_refused_before_anything_is_entered(
    desk: Desk, schema: dict[str, object]
) -> None:
    with pytest.raises(PlexusError) as raised:
        await desk.answer(asked(model="one/tiny", answer_format=AnswerFormat("x", schema)))
    assert raised.value.violations[0].field == "answer_format.json_schema.schema"
    assert not one(desk).requests
    assert (await desk.total())["calls"] == 0
