"""Responses of models: kept, followed, gone on from, cancelled, and ended for those who cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import update

from services.interop import store
from services.interop.domain import kept as rules
from services.interop.domain.values import Event, Finished, Message, Text, ToolCall, ToolDelta
from services.interop.service import background
from services.interop.settings import InteropSettings
from services.interop.tables import responses
from services.runtime.context import Principal
from services.runtime.db import EVERYONE, Database
from services.runtime.errors import Unavailable
from tests.services.interop.conftest import (
    ALICE,
    BOB,
    Desk,
    Json,
    endless,
    hello,
    text_of,
    told,
    until,
)


async def calling() -> AsyncGenerator[Event, None]:
    """Two calls of functions at once."""
    for index, name in enumerate(("weather", "time")):
        yield ToolDelta(index, f"call_{index}", name, "")
        yield ToolDelta(index, "", "", '{"city": "Wien"}')
    yield Finished("tool_calls")


async def failing() -> AsyncGenerator[Event, None]:
    yield Text("Half an ans")
    raise Unavailable("The model went away.", reason="MODEL_UNAVAILABLE")


async def cut() -> AsyncGenerator[Event, None]:
    yield Text("As much as ")
    yield ToolDelta(0, "call_0", "f", '{"half')
    yield Finished("length")


def error_of(found: Json) -> tuple[str, str]:
    return found["error"]["code"], found["error"]["param"]


async def test_it_is_kept_as_it_was_told(desk: Desk) -> None:
    made = await desk.create(instructions="Be brief.", temperature=0.5, metadata={"a": "b"})
    assert (made["status"], text_of(made)) == ("completed", "Hello there")
    assert made["id"].startswith("resp_rsp_")
    assert (made["store"], made["temperature"], made["metadata"]) == (True, 0.5, {"a": "b"})
    assert await desk.get(made["id"]) == made
    events = [event async for event in desk.stream()]
    last = events[-1]["response"]
    assert await desk.get(last["id"]) == last
    assert await desk.events(last["id"]) == events
    assert await desk.events(last["id"], after=4) == events[5:]


async def test_what_is_not_to_be_kept_is_not(desk: Desk) -> None:
    made = await desk.create(store=False)
    assert (made["status"], made["store"]) == ("completed", False)
    for found in (await desk.get(made["id"]), await desk.create(previous_response_id=made["id"])):
        assert "error" in found
        assert "status" not in found
    first = await desk.create()
    second = await desk.create(input="And?", previous_response_id=first["id"], store=False)
    assert [each.text for each in desk.models.asked[-1].messages] == ["Hi.", "Hello there", "And?"]
    assert "status" not in await desk.get(second["id"])
    refused = await desk.create(store=False, background=True)
    assert error_of(refused) == ("invalid_request", "background")
    refused = await desk.create(store="no")
    assert error_of(refused) == ("invalid_request", "store")


async def test_a_conversation_goes_on(desk: Desk) -> None:
    desk.models.queue = [calling]
    first = await desk.create(input="Weather?", instructions="Be brief.")
    outputs = [
        {"type": "function_call_output", "call_id": each["call_id"], "output": f"{each['name']}!"}
        for each in first["output"]
    ]
    second = await desk.create(input=outputs, previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    calls = tuple(
        ToolCall(f"call_{index}", name, '{"city": "Wien"}')
        for index, name in enumerate(("weather", "time"))
    )
    # The instructions were the first response's alone.
    before = [
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "weather!", tool_call_id="call_0"),
        Message("tool", "time!", tool_call_id="call_1"),
    ]
    assert list(desk.models.asked[-1].messages) == before
    await desk.create(input="Thanks.", previous_response_id=second["id"], instructions="Shout.")
    assert list(desk.models.asked[-1].messages) == [
        Message("system", "Shout."),
        *before,
        Message("assistant", "Hello there"),
        Message("user", "Thanks."),
    ]


async def test_of_half_an_answer_the_text_goes_on(desk: Desk) -> None:
    desk.models.queue = [cut]
    first = await desk.create()
    assert (first["status"], first["incomplete_details"]["reason"]) == (
        "incomplete",
        "max_output_tokens",
    )
    assert [each["status"] for each in first["output"]] == ["incomplete"] * 2
    await desk.create(input="Go on.", previous_response_id=first["id"])
    assert [each.text for each in desk.models.asked[-1].messages] == [
        "Hi.",
        "As much as ",
        "Go on.",
    ]
    assert not any(each.tool_calls for each in desk.models.asked[-1].messages)


async def test_where_a_conversation_cannot_go_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await desk.create()
    second = await desk.create(previous_response_id=first["id"])
    absent = ("previous_response_not_found", "previous_response_id")
    for previous in (f"resp_rsp_{'0' * 26}", "resp_run_1", "nothing", first["id"].upper()):
        assert error_of(await desk.create(previous_response_id=previous)) == absent
    assert error_of(await desk.create(BOB, previous_response_id=first["id"])) == absent
    of_agent = await desk.create(model="agent/default", previous_response_id=first["id"])
    assert error_of(of_agent) == absent
    await desk.responses.remove(ALICE, first["id"])
    assert error_of(await desk.create(previous_response_id=second["id"])) == absent
    refused = ("invalid_request", "previous_response_id")
    third = await desk.create()
    with monkeypatch.context() as patched:
        patched.setattr(rules, "MAX_DEPTH", 1)
        assert error_of(await desk.create(previous_response_id=third["id"])) == refused
    with monkeypatch.context() as patched:
        patched.setattr(rules, "MAX_BYTES", 120)
        assert error_of(await desk.create(previous_response_id=third["id"])) == refused
        assert error_of(await desk.create(input="x" * 200)) == ("invalid_request", "input")
    desk.models.script = endless
    under_way = await desk.create(background=True)
    assert error_of(await desk.create(previous_response_id=under_way["id"])) == refused


async def test_deleting(desk: Desk) -> None:
    made = await desk.create()
    other = await desk.responses.remove(BOB, made["id"])
    assert other.status == 404
    gone = await desk.responses.remove(ALICE, made["id"])
    assert gone.status == 200
    assert "error" in await desk.get(made["id"])
    again = await desk.responses.remove(ALICE, made["id"])
    assert again.status == 404
    of_run = await desk.responses.remove(ALICE, "resp_run_1")
    assert of_run.status == 400
    desk.models.script = endless
    under_way = await desk.create(background=True)
    assert (await desk.responses.remove(ALICE, under_way["id"])).status == 200
    await asyncio.wait_for(desk.models.stopped.wait(), 5)
    assert "error" in await desk.get(under_way["id"])


async def test_a_failing_model_never_looks_whole(desk: Desk) -> None:
    desk.models.script = failing
    events = [event async for event in desk.stream()]
    assert [each.get("type") for each in events[-2:]] == ["response.failed", None]
    assert events[-1]["error"]["code"] == "model_unavailable"
    last = events[-2]["response"]
    assert (last["status"], last["error"]["code"]) == ("failed", "model_unavailable")
    assert await desk.get(last["id"]) == last
    assert text_of(last) == "Half an ans"
    assert (await desk.create())["error"]["code"] == "model_unavailable"
    made = await desk.ended((await desk.create(background=True))["id"])
    assert (made["status"], text_of(made)) == ("failed", "Half an ans")


async def test_who_leaves_stops_the_model(desk: Desk) -> None:
    desk.models.script = endless
    for status, code in (("cancelled", None), ("failed", "interrupted")):
        events = desk.stream()
        begun = await anext(events)
        for _ in range(10):
            await anext(events)
        await events.aclose()
        await asyncio.wait_for(desk.models.stopped.wait(), 5)
        await desk.keeper.settle()
        kept = await desk.get(begun["response"]["id"])
        assert (kept["status"], (kept["error"] or {"code": None})["code"]) == (status, code)
        assert text_of(kept).startswith("w0 w1 ")
        # Who is cut off after this did not go by themselves.
        await desk.keeper.drain(0)


async def test_in_the_background_nothing_is_missed(desk: Desk) -> None:
    async def counting() -> AsyncGenerator[Event, None]:
        for number in range(40):
            yield Text(f"w{number} ")
            await asyncio.sleep(0.02)
        yield Finished("stop")

    desk.models.script = counting
    seen: list[Json] = []
    events = desk.stream(background=True)
    async for event in events:
        seen.append(event)
        if len(seen) == 8:
            break
    await events.aclose()
    response_id = seen[0]["response"]["id"]
    assert (await desk.get(response_id))["status"] == "in_progress"
    seen += await desk.events(response_id, after=seen[-1]["sequence_number"])
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["response"]["status"] == "completed"
    assert text_of(seen[-1]["response"]) == "".join(f"w{n} " for n in range(40))
    assert await desk.events(response_id) == seen
    assert "error" in await desk.get(response_id, BOB)


async def test_cancelling_here_and_elsewhere(desk: Desk, elsewhere: Database) -> None:
    desk.models.script = endless
    other = await Desk(elsewhere, "other").open()
    for asked in (desk, other):
        made = await desk.create(background=True)
        await said(desk, made["id"])
        assert "error" in await cancelled(asked, made["id"], BOB)
        ended = await cancelled(asked, made["id"])
        assert (ended["status"], ended["error"]) == ("cancelled", None)
        assert text_of(ended).startswith("w0 ")
        assert await cancelled(asked, made["id"]) == ended
        assert (await desk.events(made["id"]))[-1]["type"] == "response.cancelled"
    await other.tasks.stop()


async def cancelled(desk: Desk, response_id: str, who: Principal = ALICE) -> Json:
    async with asyncio.timeout(15):
        return told(await desk.responses.cancel(who, response_id))


async def said(desk: Desk, response_id: str) -> None:
    """Wait until it says something."""
    await until(lambda: desk.get(response_id), lambda found: bool(text_of(found)))


async def test_whoever_finds_what_nobody_writes_ends_it(desk: Desk, elsewhere: Database) -> None:
    desk.models.script = endless
    wanted = await desk.create(background=True)
    unwanted = await desk.create(background=True)
    for each in (wanted, unwanted):
        await said(desk, each["id"])
    # Without notice: the lease stays.
    await desk.tasks.stop()
    other = await Desk(elsewhere, "other").open()
    async with elsewhere.transaction(EVERYONE) as connection:
        asked = responses.c.response_id == unwanted["id"].removeprefix("resp_")
        await connection.execute(update(responses).where(asked).values(cancel_asked=True))
    found = await other.ended(wanted["id"])
    assert (found["status"], found["error"]["code"]) == ("failed", "interrupted")
    assert text_of(found).startswith("w0 ")
    assert (await other.ended(unwanted["id"]))["status"] == "cancelled"
    assert (await other.events(wanted["id"]))[-1]["type"] == "response.failed"
    await other.tasks.stop()


async def test_who_was_taken_for_dead_lets_go(desk: Desk, elsewhere: Database) -> None:
    desk.models.script = endless
    made = await desk.create(background=True)
    await said(desk, made["id"])
    # Another begins under this one's name.
    other = await Desk(elsewhere, "only").open()
    found = await other.ended(made["id"])
    assert found["error"]["code"] == "interrupted"
    await asyncio.wait_for(desk.models.stopped.wait(), 5)
    await asyncio.sleep(0.2)
    assert await other.get(made["id"]) == found
    await other.tasks.stop()


async def test_a_store_that_refuses_for_a_while_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_AGAIN_SECONDS", 0.01)
    refusals = iter([True, False] * 20)
    real = store.add

    async def add(*args: Any, **values: Any) -> None:
        await real(*args, **values)
        if next(refusals, False):
            raise Unavailable("Not now.")

    monkeypatch.setattr(store, "add", add)
    made = await desk.ended((await desk.create(background=True))["id"])
    assert (made["status"], text_of(made)) == ("completed", "Hello there")
    # One that refuses for good: whoever looks ends it, this very process.
    monkeypatch.setattr(background, "_PATIENCE_SECONDS", 0.1)
    refusals = iter([True] * 10_000)
    made = await desk.ended((await desk.create(background=True))["id"])
    assert made["error"]["code"] == "interrupted"


async def test_how_many_a_tenant_may_have(desk: Desk) -> None:
    desk.models.script = endless
    desk.background._settings = InteropSettings(max_background_of_tenant=2)
    for _ in range(2):
        assert (await desk.create(background=True))["status"] == "in_progress"
    assert (await desk.create(background=True))["error"]["code"] == "limit_reached"
    assert (await desk.create(BOB, background=True))["status"] == "in_progress"
    desk.background._settings = InteropSettings(max_background=3)
    assert (await desk.create(BOB, background=True))["error"]["code"] == "limit_reached"


async def test_a_drain_lets_them_finish_and_cuts_off_the_rest(desk: Desk) -> None:
    desk.models.queue, desk.models.script = [hello], endless
    made = await desk.create(background=True)
    long = await desk.create(background=True)
    await said(desk, long["id"])
    await desk.background.drain(0.1)
    assert (await desk.get(made["id"]))["status"] == "completed"
    assert (await desk.get(long["id"]))["error"]["code"] == "interrupted"
    assert (await desk.create(background=True))["error"]["code"] == "unavailable"
