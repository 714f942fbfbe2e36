"""The OpenAI-compatible provider, against a real HTTP server that behaves and misbehaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.llm.domain import (
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    Message,
    Prompt,
    Role,
    Started,
    Usage,
)
from services.llm.providers.openai_compatible import OpenAiCompatible
from services.llm.service import LanguageModels
from services.runtime.context import CallContext, serving
from services.runtime.errors import Code, PlexusError
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.conftest import KEY, MakeProvider
from tests.services.llm.scripted_openai import ScriptedOpenAi

PROMPT = Prompt(
    [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Yes?")]
)


def generate(provider: OpenAiCompatible, prompt: Prompt = PROMPT) -> AsyncIterator[Event]:
    return LanguageModels([provider], {}).generate("", prompt)


async def events_of(provider: OpenAiCompatible, prompt: Prompt = PROMPT) -> list[Event]:
    return [event async for event in generate(provider, prompt)]


async def refusal_of(provider: OpenAiCompatible, prompt: Prompt = PROMPT) -> PlexusError:
    """The error before `started`."""
    with pytest.raises(PlexusError) as raised:
        await events_of(provider, prompt)
    return raised.value


async def failure_of(provider: OpenAiCompatible, prompt: Prompt = PROMPT) -> tuple[str, Failed]:
    """The text before `failed`, and that."""
    events = await events_of(provider, prompt)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Failed)
    return text_of(events), events[-1]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_a_good_stream(upstream: ScriptedOpenAi, provider_of: MakeProvider) -> None:
    upstream.script = scripts.good()
    events = await events_of(provider_of())
    assert events[0] == Started("openai/tiny")
    assert text_of(events) == "Hello, world."
    assert events[-1] == Finished(FinishReason.STOP, Usage(11, 4, estimated=False))
    assert all(isinstance(each, Delta) for each in events[1:-1])


async def test_what_is_asked_of_the_server(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "from-the-environment")
    await events_of(provider_of(), Prompt(PROMPT.messages, max_output_tokens=7, temperature=0.5))
    assert upstream.last.body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.5,
    }
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"
    await events_of(provider_of(key=""))
    assert "max_tokens" not in upstream.last.body
    assert "authorization" not in upstream.last.headers
    assert "from-the-environment" not in str(upstream.last.headers)


async def test_a_server_that_does_not_count_gets_counted(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.good(usage=None)
    last = (await events_of(provider_of()))[-1]
    # 9 + 2 + 4 bytes in three messages, then 13 in the answer.
    assert last == Finished(FinishReason.STOP, Usage(3 + 1 + 1 + 12, 4, estimated=True))


@pytest.mark.parametrize(
    ("word", "reason"),
    [("length", FinishReason.LENGTH), ("content_filter", FinishReason.CONTENT_FILTER)],
)
async def test_why_it_stopped(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, word: str, reason: FinishReason
) -> None:
    upstream.script = scripts.good(finish=word)
    last = (await events_of(provider_of()))[-1]
    assert isinstance(last, Finished)
    assert last.reason is reason


async def test_paced_tokens_arrive_one_by_one(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.good(pace=0.03)
    began = time.perf_counter()
    texts, first = [], 0.0
    async for event in generate(provider_of()):
        if isinstance(event, Delta):
            first = first or time.perf_counter() - began
            texts.append(event.text)
    assert texts == list(scripts.TOKENS)
    assert first < time.perf_counter() - began - 0.08


async def test_what_is_waiting_travels_together_and_is_bounded(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    tokens = [f"token number {number} " for number in range(10_000)]
    upstream.script = scripts.good(tokens)
    events = []
    async for event in generate(provider_of()):
        events.append(event)
        # A slow reader.
        await asyncio.sleep(0.01)
    assert text_of(events) == "".join(tokens)
    assert len(events) < 200
    assert max(len(each.text) for each in events if isinstance(each, Delta)) <= 65_536 + 20


async def test_a_reader_that_stops_stops_the_server(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    written = 0

    async def endless(answer: scripts.Answer) -> None:
        nonlocal written
        await answer.begin()
        while True:
            await answer.chunk("x" * 1000)
            written += 1

    upstream.script = endless
    async with aclosing(generate(provider_of())) as events:  # type: ignore[type-var]
        await anext(events)
        await anext(events)
        await asyncio.sleep(0.3)
        before = written
        await asyncio.sleep(0.2)
        # The buffers of both ends are full: a megabyte or so, and not one byte more.
        assert written == before
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, Code.INVALID_ARGUMENT, "MODEL_REFUSED"),
        (422, Code.INVALID_ARGUMENT, "MODEL_REFUSED"),
        (413, Code.INVALID_ARGUMENT, "MODEL_REFUSED"),
        (404, Code.NOT_FOUND, "UNKNOWN_MODEL"),
        (401, Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
        (403, Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
        (429, Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
        (307, Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
        (500, Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
        (503, Code.UNAVAILABLE, "MODEL_UNAVAILABLE"),
    ],
)
async def test_statuses_become_typed_errors_without_the_servers_words(
    upstream: ScriptedOpenAi,
    provider_of: MakeProvider,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: Code,
    reason: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    body = f'{{"error": {{"message": "key {KEY} of Ada", "type": "bad_thing", "code": "{KEY}"}}}}'
    upstream.script = scripts.status(status, body, {"location": "/elsewhere"})
    error = await refusal_of(provider_of())
    assert (error.code, error.reason) == (code, reason)
    assert f"HTTP {status}" in error.message
    assert len(upstream.requests) == 1
    for text in (str(error), error.message, repr(error.metadata), caplog.text):
        assert KEY not in text
        assert "Ada" not in text


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("1e999", None, None),
        ("-3", None, None),
        ("soon", None, None),
        (format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True), 50, 101),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_when_to_come_back(
    upstream: ScriptedOpenAi,
    provider_of: MakeProvider,
    status: int,
    value: str,
    low: float | None,
    high: float | None,
) -> None:
    upstream.script = scripts.status(status, headers={"retry-after": value})
    after = (await refusal_of(provider_of())).retry_after
    if low is None or high is None:
        assert after is None
    else:
        assert after is not None
        assert low <= after <= high


async def test_an_endless_error_body_is_not_read(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    async def endless(answer: scripts.Answer) -> None:
        await answer.begin(500)
        while True:
            await answer.raw(b"x" * 10_000)

    upstream.script = endless
    began = time.perf_counter()
    assert (await refusal_of(provider_of())).reason == "MODEL_UNAVAILABLE"
    assert time.perf_counter() - began < 1
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"])
async def test_nobody_there(provider_of: MakeProvider, url: str) -> None:
    error = await refusal_of(provider_of(url=url, silence=2))
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "MODEL_UNAVAILABLE")
    assert url not in error.message


async def test_a_connection_that_breaks_before_the_status_is_not_tried_again(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    async def script(answer: scripts.Answer) -> None:
        answer.cut()
        await asyncio.Event().wait()

    upstream.script = script
    assert (await refusal_of(provider_of())).reason == "MODEL_UNAVAILABLE"
    assert len(upstream.requests) == 1


async def test_a_server_without_a_key_needs_none(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance((await events_of(provider_of(key="")))[-1], Finished)
    assert "authorization" not in upstream.last.headers


async def test_a_defect_of_ours_is_raised_and_nobody_waits_for_ever(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(payload: bytes) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("services.llm.providers.openai_compatible.parse_chunk", defect)
    with pytest.raises(RuntimeError):
        async with asyncio.timeout(2):
            await events_of(provider_of())


async def test_silence_before_the_status(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.hang()
    error = await refusal_of(provider_of(silence=0.2))
    assert error.reason == "MODEL_UNAVAILABLE"
    assert "in time" in error.message
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(scripts.hang(("Hello", ", ")), id="hang"),
        pytest.param(scripts.cut(), id="cut"),
        pytest.param(scripts.ends_early(), id="ends"),
        pytest.param(scripts.ends_early(done=True), id="done-without-finish"),
        pytest.param(scripts.raw(b"data: {not json\n\n"), id="broken-json"),
        pytest.param(scripts.raw(b"data: \xff\xfe\n\n"), id="not-utf8"),
        pytest.param(scripts.raw(b"data: [1, 2]\n\n"), id="not-an-object"),
        pytest.param(scripts.raw(b'data: {"choices": "many"}\n\n'), id="not-choices"),
        pytest.param(
            scripts.raw(b'data: {"choices": [{"delta": {"content": [1]}}]}\n\n'), id="no-text"
        ),
        pytest.param(scripts.raw(b"data: " + b"[" * 100_000 + b"\n\n"), id="deep"),
        pytest.param(scripts.raw(b'data: {"error": {"message": "x"}}\n\n'), id="error-event"),
        pytest.param(scripts.raw(b'data: {"choices": [{"delta": {"content": "wor'), id="truncated"),
        pytest.param(scripts.raw(b"data: " + b"x" * 2_000_000, stay=True), id="huge-line"),
        pytest.param(
            scripts.raw(b'data: {"choices": [{"delta": {}, "finish_reason": "error"}]}\n\n'),
            id="finish-error",
        ),
    ],
)
async def test_half_an_answer_never_looks_whole(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, script: scripts.Script
) -> None:
    upstream.script = script
    text, failed = await failure_of(provider_of(silence=0.4))
    assert text == "Hello, "
    assert failed.error.reason == "MODEL_UNAVAILABLE"
    assert failed.usage == Usage(17, 2, estimated=True)
    await asyncio.wait_for(upstream.last.served.wait(), 2)


async def test_bytes_that_drip_are_no_sign_of_life(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.drip()
    began = time.perf_counter()
    _, failed = await failure_of(provider_of(silence=0.4))
    assert failed.error.reason == "MODEL_UNAVAILABLE"
    assert time.perf_counter() - began < 1.5
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


async def test_an_answer_without_end_is_ended(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.endless()
    text, failed = await failure_of(provider_of())
    assert failed.error.reason == "LIMIT_REACHED"
    assert len(text) <= 1_000_000
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


async def test_one_large_chunk_is_passed_on_whole(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.good(("x" * 500_000, "y"))
    assert text_of(await events_of(provider_of())) == "x" * 500_000 + "y"


@pytest.mark.parametrize("after", ["cut", "hang", "junk"])
async def test_what_breaks_after_the_finish_reason_is_no_loss(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.llm.providers.openai_compatible._EPILOGUE_SECONDS", 0.1)

    async def script(answer: scripts.Answer) -> None:
        await answer.begin()
        await answer.chunk("Whole.")
        await answer.chunk(finish="stop")
        await asyncio.sleep(0.02)
        if after == "cut":
            answer.cut()
        if after == "junk":
            await answer.raw(b"data: junk\n\n")
        await asyncio.Event().wait()

    upstream.script = script
    async with asyncio.timeout(2):
        events = await events_of(provider_of())
    assert text_of(events) == "Whole."
    assert isinstance(events[-1], Finished)


async def test_characters_in_halves_are_joined(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.good(("a\ud83d", "\ude00b", "\udc00c", "é"))
    assert text_of(await events_of(provider_of())) == "a😀b\ufffdcé"


async def test_lines_in_any_form_and_pieces(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    stream = (
        ': hello\r\n\r\nevent: x\r\ndata:{"choices": [{"delta": {"content": "Grüße"}}]}\r\n\r\n'
        'data: {"choices": [{"delta": {"refusal": ", no"}}]}\n'
        'data: {"choices": [], "usage": null}\n\ndata: {"choices": null}\n\n'
        'data: {"choices": [{"delta": null, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    ).encode()

    async def script(answer: scripts.Answer) -> None:
        await answer.begin()
        for at in range(0, len(stream), 3):
            await answer.raw(stream[at : at + 3])
            await asyncio.sleep(0)

    upstream.script = script
    events = await events_of(provider_of())
    assert text_of(events) == "Grüße, no"
    assert isinstance(events[-1], Finished)


async def test_whoever_leaves_takes_the_server_along(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.hang(("Hello",))
    async with aclosing(generate(provider_of())) as events:  # type: ignore[type-var]
        await anext(events)
        assert await anext(events) == Delta("Hello")
        assert not upstream.last.gone.is_set()
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


@pytest.mark.parametrize("tokens", [None, ("Hello",)])
async def test_cancelling_the_task_reaches_the_server(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, tokens: Sequence[str] | None
) -> None:
    upstream.script = scripts.hang(tokens)
    task = asyncio.create_task(events_of(provider_of(limit=1)))
    await upstream.received()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


async def test_the_calls_deadline_ends_it_in_words(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    now = asyncio.get_running_loop().time
    upstream.script = scripts.hang(("Hello",))
    with serving(CallContext("r", "t", deadline=now() + 0.5)):
        text, failed = await failure_of(provider_of())
    assert text == "Hello"
    assert failed.error.reason == "DEADLINE_EXCEEDED"
    upstream.script = scripts.hang()
    with serving(CallContext("r", "t", deadline=now() + 0.3)):
        assert (await refusal_of(provider_of())).code is Code.DEADLINE_EXCEEDED


async def test_too_many_at_once_wait_and_more_are_refused(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    provider = provider_of(limit=2, waiting=1)
    upstream.queue = [scripts.hang(("a",)), scripts.hang(("b",))]
    held = [asyncio.create_task(events_of(provider)) for _ in range(2)]
    waits = asyncio.create_task(events_of(provider))
    await asyncio.sleep(0.1)
    error = await refusal_of(provider)
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    assert error.metadata == {"limit": "generations"}
    assert error.retry_after
    assert len(upstream.requests) == 2
    held[0].cancel()
    assert text_of(await waits) == "Hello, world."
    # The place in the queue is free again, also after a wait that was given up.
    upstream.queue = [scripts.hang(("c",))]
    held.append(asyncio.create_task(events_of(provider)))
    await asyncio.sleep(0.05)
    for _ in range(3):
        waits = asyncio.create_task(events_of(provider))
        await asyncio.sleep(0.02)
        assert not waits.done()
        waits.cancel()
        await asyncio.wait([waits])
    for each in held:
        each.cancel()
    await asyncio.wait(held)


async def test_a_refused_request_frees_its_place(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    provider = provider_of(limit=1, waiting=0)
    upstream.queue = [scripts.status(500), scripts.cut()]
    await refusal_of(provider)
    await failure_of(provider)
    assert isinstance((await events_of(provider))[-1], Finished)
