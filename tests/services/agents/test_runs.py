"""Runs: the grammar of their stream, and that nothing acknowledged is lost however they end."""

from __future__ import annotations

import asyncio
import random

import pytest

from services.agents.domain import (
    Cancelled,
    Completed,
    Event,
    Failed,
    Happening,
    Run,
    RunState,
    Started,
    TextDelta,
    Usage,
    from_data,
    text_of,
    to_data,
)
from services.agents.ports import Finish
from services.agents.runlog import LiveRun
from services.agents.service import Asked
from services.agents.settings import AgentsSettings
from services.runtime.context import acting_as
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from tests.services.agents.conftest import ALICE, BOB, Desk


def assert_grammar(events: list[Event]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0].happening, Started)
    assert [event.is_last for event in events] == [False] * (len(events) - 1) + [True]
    for event in events[1:-1]:
        assert isinstance(event.happening, TextDelta | Usage)


async def test_a_run_is_answered_by_the_grammar(desk: Desk) -> None:
    run = await desk.ask("What is new?")
    events = await desk.events(run)
    assert_grammar(events)
    assert text_of(events) == "Hello there"
    assert isinstance(events[-1].happening, Completed)
    ended = await desk.service.run("ten_a", run.run_id)
    assert (ended.state, ended.output, ended.last_sequence) == (
        RunState.COMPLETED,
        "Hello there",
        len(events),
    )
    assert ended.usage == Usage(10, 5, "scripted/model")
    assert desk.history.answers() == [("Hello there", False)]
    assert [part.text for part in desk.models.asked[0].parts][1:] == ["What is new?"]


async def test_whoever_watches_from_anywhere_sees_each_event_once(desk: Desk) -> None:
    desk.models.steps = tuple(step for n in range(60) for step in (f"w{n} ", 0.001))
    run = await desk.ask()
    seeds = random.Random(7)

    async def watch_with_drops() -> list[Event]:
        seen: list[Event] = []
        while not (seen and seen[-1].is_last):
            allowed = seeds.randint(1, 9)
            async for event in desk.service.watch("ten_a", run.run_id, len(seen)):
                seen.append(event)
                allowed -= 1
                if not allowed:
                    break
        return seen

    watched = await asyncio.gather(*(watch_with_drops() for _ in range(8)))
    stored = await desk.runs.stored(run)
    assert_grammar(stored)
    for seen in watched:
        assert seen == stored
    assert await desk.events(run, after=len(stored)) == []
    assert await desk.events(run, after=10) == stored[10:]


async def test_a_failure_in_the_middle_keeps_what_was_written(desk: Desk) -> None:
    desk.models.steps = ("Half", 0.01, Unavailable("gone", reason="MODEL_UNAVAILABLE"))
    events = await desk.events(await desk.ask())
    assert_grammar(events)
    assert text_of(events) == "Half"
    assert events[-1].happening == Failed("MODEL_UNAVAILABLE", "gone")
    assert desk.history.answers() == [("Half", True)]


async def test_an_unexpected_error_says_nothing_of_itself(desk: Desk) -> None:
    desk.models.steps = (RuntimeError("password=hunter2"),)
    run = await desk.ask()
    last = (await desk.events(run))[-1].happening
    assert isinstance(last, Failed)
    assert last.reason == "INTERNAL"
    assert "hunter2" not in last.message


async def test_a_model_that_reports_failure_fails_the_run(desk: Desk) -> None:
    desk.models.steps = ("Half", Finish(3, 1, reason="MODEL_UNAVAILABLE", message="cut"))
    events = await desk.events(await desk.ask())
    assert events[-1].happening == Failed("MODEL_UNAVAILABLE", "cut")
    assert Usage(3, 1, "scripted/model") in [event.happening for event in events]


async def test_cancelling_stops_the_model_and_keeps_the_text(desk: Desk) -> None:
    desk.models.steps = ("Some", 0.0, 30.0, "never")
    run = await desk.ask()
    async for event in desk.service.watch("ten_a", run.run_id, 0):
        if isinstance(event.happening, TextDelta):
            break
    cancelled = await desk.service.cancel(ALICE, run.run_id)
    assert (cancelled.state, cancelled.output) == (RunState.CANCELLED, "Some")
    assert desk.models.stopped.is_set()
    assert (await desk.events(run))[-1].happening == Cancelled("usr_a")
    assert desk.history.answers() == [("Some", True)]
    again = await desk.service.cancel(ALICE, run.run_id)
    assert again == cancelled


async def test_a_cancel_at_any_moment_leaves_a_whole_stream(desk: Desk) -> None:
    desk.models.steps = tuple(f"{n} " for n in range(200))
    for delay in range(25):
        run = await desk.ask()
        await asyncio.sleep(delay / 2000)
        await desk.service.cancel(ALICE, run.run_id)
        events = await desk.events(run)
        assert_grammar(events)
        assert events == await desk.runs.stored(run)
        # What the stream gave is what the session has, and the question always is there.
        texts = [
            (said.text, partial)
            for session, said, partial in desk.history.kept.values()
            if session == run.session_id
        ]
        text = text_of(events)
        whole = isinstance(events[-1].happening, Completed)
        assert texts == [("hi", False)] + ([(text, not whole)] if text else [])


async def test_a_slow_watcher_gets_everything(desk: Desk) -> None:
    desk.models.steps = tuple(step for n in range(30) for step in (f"w{n} ", 0.001))
    run = await desk.ask()
    seen = []
    async for event in desk.service.watch("ten_a", run.run_id, 0):
        seen.append(event)
        await asyncio.sleep(0.01)
    assert_grammar(seen)
    assert seen == await desk.runs.stored(run)


async def test_a_cancel_while_the_log_is_slow_keeps_what_was_written(desk: Desk) -> None:
    desk.models.steps = ("A", 0.01, "B", "C")
    append = desk.runs.append

    async def slowly(live: LiveRun, *happenings: Happening) -> None:
        if isinstance(happenings[0], TextDelta):
            await asyncio.sleep(0.1)
        await append(live, *happenings)

    desk.runs.append = slowly  # type: ignore[method-assign]
    run = await desk.ask()
    while not desk.models.stopped.is_set():
        await asyncio.sleep(0.001)
    ended = await desk.service.cancel(ALICE, run.run_id)
    assert ended.output == "ABC"
    assert desk.history.answers() == [("ABC", True)]


async def test_a_run_whose_log_breaks_is_ended_from_what_is_stored(desk: Desk) -> None:
    append = desk.runs.append

    async def break_once(live: LiveRun, *happenings: Happening) -> None:
        if isinstance(happenings[-1], Completed):
            desk.runs.append = append  # type: ignore[method-assign]
            raise RuntimeError("no PlexusError")
        await append(live, *happenings)

    desk.runs.append = break_once  # type: ignore[method-assign]
    run = await desk.ask()
    events = await desk.events(run)
    assert_grammar(events)
    assert isinstance(events[-1].happening, Completed)
    assert text_of(events) == "Hello there"


async def test_a_run_has_a_deadline(desk: Desk) -> None:
    desk.settings = AgentsSettings(run_seconds=0.2)
    await desk.open()
    desk.models.steps = ("Slow", 30.0)
    events = await desk.events(await desk.ask())
    last = events[-1].happening
    assert isinstance(last, Failed)
    assert last.reason == "DEADLINE_EXCEEDED"
    assert text_of(events) == "Slow"


async def test_one_key_is_one_run(desk: Desk) -> None:
    runs = await asyncio.gather(*(desk.ask("same", key="k1") for _ in range(30)))
    assert len({run.run_id for run in runs}) == 1
    assert len(desk.models.asked) <= 1
    await desk.events(runs[0])
    assert (await desk.ask("same", key="k1")).run_id == runs[0].run_id
    with pytest.raises(AlreadyExists) as caught:
        await desk.ask("other", key="k1")
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    with acting_as(BOB):
        other = await desk.service.start(BOB, Asked("same", "", "", "k1"))
    assert other.run_id != runs[0].run_id


async def test_a_session_has_one_run_at_a_time(desk: Desk) -> None:
    first = await desk.ask()
    await desk.events(first)
    desk.models.steps = ("Busy", 30.0)
    second = await desk.ask(session=first.session_id)
    with pytest.raises(Aborted) as caught:
        await desk.ask(session=first.session_id)
    assert caught.value.metadata == {"run_id": second.run_id}
    await desk.service.cancel(ALICE, second.run_id)
    desk.models.steps = ("Free",)
    events = await desk.events(await desk.ask(session=first.session_id))
    assert text_of(events) == "Free"


async def test_the_number_of_runs_is_bounded(desk: Desk) -> None:
    desk.settings = AgentsSettings(max_runs=2)
    await desk.open()
    desk.models.steps = (30.0,)
    answers = await asyncio.gather(
        *(desk.ask(key=f"k{n}") for n in range(20)), return_exceptions=True
    )
    runs = {f"k{n}": each for n, each in enumerate(answers) if isinstance(each, Run)}
    assert len(runs) == 2
    assert {type(each) for each in answers} == {Run, ResourceExhausted}
    # There is always room to hear again what was asked before.
    for key, run in runs.items():
        assert (await desk.ask(key=key)).run_id == run.run_id


async def test_another_tenants_run_looks_absent(desk: Desk) -> None:
    run = await desk.ask()
    for tenant, run_id in (("ten_b", run.run_id), ("ten_a", "run_absent")):
        with pytest.raises(NotFound) as caught:
            await desk.service.run(tenant, run_id)
        assert caught.value.message == NotFound.of("run").message
        with pytest.raises(NotFound):
            async for _ in desk.service.watch(tenant, run_id, 0):
                pass
    with pytest.raises(NotFound):
        await desk.service.cancel(BOB, run.run_id)
    with pytest.raises(NotFound):
        await desk.service.agent("ten_b", run.agent_id)
    await desk.events(run)


async def test_history_that_is_away_for_a_moment_costs_nothing(desk: Desk) -> None:
    desk.models.on_step = lambda: desk.history.failing.extend([Unavailable("away")] * 2)
    desk.models.steps = ("Hello",)
    events = await desk.events(await desk.ask())
    assert isinstance(events[-1].happening, Completed)
    assert desk.history.answers() == [("Hello", False)]


async def test_history_that_is_away_at_the_start_fails_the_run(desk: Desk) -> None:
    desk.history.failing = [Unavailable("away")]
    events = await desk.events(await desk.ask())
    assert_grammar(events)
    assert events[-1].happening == Failed("UNAVAILABLE", "away")


async def test_what_a_dead_process_left_is_ended_with_its_text(desk: Desk) -> None:
    desk.models.steps = ("Some", 0.0, " words", 30.0)
    runs = [await desk.ask(f"q{n}") for n in range(5)]
    for run in runs:
        async for event in desk.service.watch("ten_a", run.run_id, 0):
            if isinstance(event.happening, TextDelta):
                break
    seen = [await desk.runs.stored(run) for run in runs]
    await desk.tasks.stop()  # as a kill: nothing is written on the way out
    await desk.open()
    for run, before in zip(runs, seen, strict=True):
        events = await desk.events(run)
        assert_grammar(events)
        assert events[: len(before)] == before
        last = events[-1].happening
        assert isinstance(last, Failed)
        assert last.reason == "INTERRUPTED"
        assert (text_of(events), True) in desk.history.answers()
    assert await desk.leases.take_over() == []


async def test_an_answer_that_was_kept_whole_is_completed_after_a_crash(desk: Desk) -> None:
    desk.models.steps = ("Whole",)
    kept = asyncio.Event()
    append = desk.runs.append

    async def die_before_the_last_event(live: LiveRun, *happenings: Happening) -> None:
        if isinstance(happenings[-1], Completed):
            kept.set()
            await asyncio.sleep(60)
        await append(live, *happenings)

    desk.runs.append = die_before_the_last_event  # type: ignore[method-assign]
    run = await desk.ask()
    await kept.wait()
    assert desk.history.answers() == [("Whole", False)]
    await desk.tasks.stop()
    await desk.open()
    events = await desk.events(run)
    assert_grammar(events)
    assert isinstance(events[-1].happening, Completed)
    assert desk.history.answers() == [("Whole", False)]


async def test_a_drain_lets_runs_finish_and_cuts_the_rest(desk: Desk) -> None:
    desk.models.steps = ("Quick", 0.1)
    quick = await desk.ask()
    while len(desk.models.asked) < 1:
        await asyncio.sleep(0.005)
    desk.models.steps = ("Slow", 30.0)
    slow = await desk.ask()
    await desk.service.drain(0.5)
    with pytest.raises(Unavailable):
        await desk.ask()
    assert isinstance((await desk.events(quick))[-1].happening, Completed)
    events = await desk.events(slow)
    last = events[-1].happening
    assert isinstance(last, Failed)
    assert (last.reason, text_of(events)) == ("INTERRUPTED", "Slow")


async def test_a_run_that_is_being_accepted_is_drained_like_the_others(desk: Desk) -> None:
    desk.models.steps = ("Quick", 0.2, " enough")
    await desk.service.agent("ten_a", "")
    asking = asyncio.create_task(desk.ask())
    while not desk.service._work:
        await asyncio.sleep(0)
    await desk.service.drain(5)
    events = await desk.events(await asking)
    assert isinstance(events[-1].happening, Completed)
    assert text_of(events) == "Quick enough"


async def test_every_tenant_has_one_default_agent(desk: Desk) -> None:
    found = await asyncio.gather(*(desk.service.agent("ten_new", "") for _ in range(20)))
    assert len({agent.agent_id for agent in found}) == 1
    listed, token = await desk.service.agents("ten_new", 0, "")
    assert (listed, token) == ([found[0]], "")


@pytest.mark.parametrize(
    "happening",
    [
        Started("ses_1", "agt_1"),
        TextDelta("ü\n"),
        Usage(1, 2, "m"),
        Completed("msg_1", True),
        Failed("INTERNAL", "x"),
        Cancelled("usr_1"),
    ],
)
def test_an_event_is_read_as_it_was_stored(happening: object) -> None:
    assert from_data(happening.kind, to_data(happening)) == happening  # type: ignore[attr-defined,arg-type]
