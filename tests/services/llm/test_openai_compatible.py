"""The OpenAI-compatible provider against a real HTTP server that behaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from services.llm.domain.generation import Delta, Finished, FinishReason, Prompt, Started, Usage
from services.runtime.errors import Code
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.asking import PROMPT, events_of, generate, refusal_of, text_of
from tests.services.llm.conftest import KEY, MakeProvider
from tests.services.llm.scripted_openai import ScriptedOpenAi


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


async def test_a_server_need_not_count(upstream: ScriptedOpenAi, provider_of: MakeProvider) -> None:
    upstream.script = scripts.good(usage=None)
    last = (await events_of(provider_of()))[-1]
    assert last == Finished(FinishReason.STOP, None)


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
        # A reader much slower than the server, on a busy machine too.
        await asyncio.sleep(0.05)
    assert text_of(events) == "".join(tokens)
    assert len(events) < 200
    assert max(len(each.text) for each in events if isinstance(each, Delta)) <= 65_536 + 20


async def test_a_slow_reader_is_no_silence_of_the_server(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    tokens = ["x" * 1000] * 900
    upstream.script = scripts.good(tokens)
    text = ""
    async for event in generate(provider_of(silence=0.2)):
        text += event.text if isinstance(event, Delta) else ""
        await asyncio.sleep(0.3)
    assert text == "".join(tokens)


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
    async with aclosing(generate(provider_of())) as events:
        await anext(events)
        await anext(events)
        await asyncio.sleep(0.3)
        before = written
        await asyncio.sleep(0.2)
        # The buffers of both ends are full: a megabyte or so, and not one byte more.
        assert written == before
    await asyncio.wait_for(upstream.last.gone.wait(), 2)


async def test_a_server_without_a_key_needs_none(
    upstream: ScriptedOpenAi, provider_of: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance((await events_of(provider_of(key="")))[-1], Finished)
    assert "authorization" not in upstream.last.headers


async def test_one_large_chunk_is_passed_on_whole(
    upstream: ScriptedOpenAi, provider_of: MakeProvider
) -> None:
    upstream.script = scripts.good(("x" * 500_000, "y"))
    assert text_of(await events_of(provider_of())) == "x" * 500_000 + "y"


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
    async with aclosing(generate(provider_of())) as events:
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
