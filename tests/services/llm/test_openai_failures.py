"""The OpenAI-compatible provider against a real HTTP server that misbehaves."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.llm.domain.generation import Finished
from services.runtime.errors import Code
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.asking import due_in, events_of, failure_of, refusal_of, text_of
from tests.services.llm.conftest import KEY, MakeProvider
from tests.services.llm.scripted_openai import ScriptedOpenAi


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
        ("a date", 50, 101),
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
    if value == "a date":
        # Made here: parallel test processes must agree on the names of the tests.
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
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


async def test_the_calls_deadline_ends_it_in_words(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.hang(("Hello",))
    text, failed = await failure_of(provider_of(), due_in(0.5))
    assert text == "Hello"
    assert failed.error.reason == "DEADLINE_EXCEEDED"
    upstream.script = scripts.hang()
    assert (await refusal_of(provider_of(), due_in(0.3))).code is Code.DEADLINE_EXCEEDED


async def test_a_refused_request_frees_its_place(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    provider = provider_of(limit=1, waiting=0)
    upstream.queue = [scripts.status(500), scripts.cut()]
    await refusal_of(provider)
    await failure_of(provider)
    assert isinstance((await events_of(provider))[-1], Finished)
