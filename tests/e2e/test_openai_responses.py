"""Responses of OpenAI's protocol with its own client: of models, and of agents that remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.callers import Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.e2e.test_openai import City, provide
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.scripted_openai import ScriptedOpenAi


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedOpenAi]:
    """A model server with scripts."""
    async with ScriptedOpenAi() as server:
        yield server


@pytest.fixture
async def client(mesh: Mesh, rest: Rest, upstream: ScriptedOpenAi) -> AsyncIterator[Any]:
    """The client of somebody whose tenant has a provider `lab`."""
    await sign_up(rest)
    await provide(rest, upstream)
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key=rest.token, max_retries=0
    ) as found:
        yield found


async def test_a_response_of_a_model(client: Any, upstream: ScriptedOpenAi) -> None:
    found = await client.responses.create(
        model="lab/tiny", instructions="Be brief.", input="Hello?", max_output_tokens=50
    )
    assert (found.status, found.output_text) == ("completed", "Hello, world.")
    assert (found.usage.input_tokens, found.usage.output_tokens) == (11, 4)
    assert found.instructions == "Be brief."
    assert upstream.last.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    upstream.script = scripts.good(finish="length")
    cut = await client.responses.create(model="lab/tiny", input="Hello?")
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_its_events(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.good(pace=0.03)
    stream = await client.responses.create(model="lab/tiny", input="Hello?", stream=True)
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "Hello, world."
    upstream.script = scripts.cut()
    stream = await client.responses.create(model="lab/tiny", input="Hello?", stream=True)
    with pytest.raises(openai.APIError):
        kinds = [event.type async for event in stream]
    assert "response.completed" not in kinds[len(kinds) :]


async def test_functions_and_their_results(client: Any, upstream: ScriptedOpenAi) -> None:
    async def weather(answer: scripts.Answer) -> None:
        await answer.begin()
        await answer.tool(0, "call_1", "weather", '{"city": ')
        await answer.tool(0, arguments='"Wien"}')
        await answer.chunk(finish="tool_calls")
        await answer.done()

    upstream.queue = [weather]
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    asked = {"role": "user", "content": "Weather?"}
    found = await client.responses.create(model="lab/tiny", input=[asked], tools=[tool])
    (call,) = found.output
    second = await client.responses.create(
        model="lab/tiny",
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}],
        previous_response_id=found.id,
    )
    assert (second.previous_response_id, second.output_text) == (found.id, "Hello, world.")
    kept = upstream.last.body["messages"]
    assert kept[1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Wien"}'
    assert kept[2] == {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}
    assert (call.type, call.name, call.arguments) == (
        "function_call",
        "weather",
        '{"city": "Wien"}',
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    given = [asked, call.model_dump(exclude_none=True), result]
    found = await client.responses.create(model="lab/tiny", input=given, tools=[tool])
    assert found.output_text == "Hello, world."
    said = upstream.last.body["messages"]
    assert said[1]["tool_calls"][0]["id"] == "call_1"
    assert said[2] == {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."}


async def test_structured_output(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.good(['{"name": "Wien", "people": 2000000}'])
    found = await client.responses.parse(model="lab/tiny", input="Wien?", text_format=City)
    assert found.output_parsed == City(name="Wien", people=2_000_000)


async def test_a_models_response_is_kept(client: Any, rest: Rest) -> None:
    made = await client.responses.create(
        model="lab/tiny", instructions="Be brief.", input="Hello?", metadata={"about": "greetings"}
    )
    assert await client.responses.retrieve(made.id) == made
    (item,) = (await client.responses.input_items.list(made.id)).data
    assert (item.role, item.content[0].text) == ("user", "Hello?")
    said = [{"role": "user", "content": f"line {number}"} for number in range(5)]
    long = await client.responses.create(model="lab/tiny", input=said)
    listed = [each async for each in client.responses.input_items.list(long.id, limit=2)]
    assert [each.content[0].text for each in listed] == [f"line {n}" for n in reversed(range(5))]
    first = await client.responses.input_items.list(
        long.id, limit=2, order="asc", after=listed[3].id
    )
    assert ([each.content[0].text for each in first.data], first.has_more) == (
        ["line 2", "line 3"],
        True,
    )
    with pytest.raises(openai.BadRequestError):
        await client.responses.input_items.list(long.id, order="sideways")
    await client.responses.delete(made.id)
    forgotten = await client.responses.create(model="lab/tiny", input="Hello?", store=False)
    await sign_up(rest)
    stranger = client.with_options(api_key=rest.token)
    for response_id, who in (
        (made.id, client),
        (forgotten.id, client),
        (long.id, stranger),
    ):
        for call in ("retrieve", "delete", "cancel"):
            with pytest.raises(openai.NotFoundError):
                await getattr(who.responses, call)(response_id)
        with pytest.raises(openai.BadRequestError) as refused:
            await who.responses.create(
                model="offline/extractive", input="Go on.", previous_response_id=response_id
            )
        assert refused.value.code == "previous_response_not_found"


async def test_a_connection_that_drops(client: Any, upstream: ScriptedOpenAi) -> None:
    words = [f"w{number} " for number in range(30)]
    upstream.script = scripts.good(words, pace=0.05)
    for background in (True, False):
        stream = await client.responses.create(
            model="lab/tiny", input="Count.", stream=True, background=background
        )
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) == 8:
                break
        await stream.close()
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        if not background:
            # Nobody listens any more: the model is stopped, and what is kept says so.
            await asyncio.wait_for(upstream.last.gone.wait(), 5)
            kept = await _ended(client, response_id)
            assert kept.status == "cancelled"
            assert kept.output_text
            assert "".join(words).startswith(kept.output_text)
            continue
        stream = await client.responses.retrieve(response_id, stream=True, starting_after=last)
        seen += [event async for event in stream]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed"
        assert seen[-1].response.output_text == "".join(words)


async def test_a_model_that_fails(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.cut()
    begun = await client.responses.create(model="lab/tiny", input="Hello?", background=True)
    kept = await _ended(client, begun.id)
    assert (kept.status, kept.error.code, kept.output_text) == (
        "failed",
        "model_unavailable",
        "Hello, ",
    )
    stream = await client.responses.create(model="lab/tiny", input="Hello?", stream=True)
    seen = []
    with pytest.raises(openai.APIError):
        async for event in stream:
            seen.append(event)
    assert seen[-1].type == "response.failed"
    assert (await client.responses.retrieve(seen[-1].response.id)).status == "failed"
    unknown = await client.responses.create(model="lab/none", input="Hello?", background=True)
    assert (await _ended(client, unknown.id)).error.code == "unknown_model"


async def _ended(client: Any, response_id: str) -> Any:
    """A response when it is over; one that its reader left is kept in a moment."""
    async with asyncio.timeout(20):
        while True:
            try:
                found = await client.responses.retrieve(response_id)
            except openai.NotFoundError:
                found = None
            if found is not None and found.status != "in_progress":
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("shape", ["embedded", "mesh"])
async def test_what_a_restart_leaves(tmp_path: Path, upstream: ScriptedOpenAi, shape: str) -> None:
    upstream.script = scripts.good()
    mesh = Mesh(tmp_path / "data", shape, egress_allow="127.0.0.1")
    await mesh.start()
    rest = Rest(mesh.url)
    await sign_up(rest)
    await provide(rest, upstream)
    client: Any = openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key=rest.token, max_retries=0)
    async with client:
        whole = await client.responses.create(model="lab/tiny", input="Hello?")
        upstream.script = scripts.good([f"w{number} " for number in range(500)], pace=0.02)
        stream = await client.responses.create(
            model="lab/tiny", input="Count.", stream=True, background=True
        )
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) == 20:
                break
        await stream.close()
        await mesh.kill()
        await mesh.start()
        assert await client.responses.retrieve(whole.id) == whole
        cut = await _ended(client, seen[0].response.id)
        assert (cut.status, cut.error.code) == ("failed", "interrupted")
        shown = "".join(each.delta for each in seen if each.type == "response.output_text.delta")
        assert cut.output_text.startswith(shown)
        stream = await client.responses.retrieve(cut.id, stream=True)
        again = [event async for event in stream]
        assert again[: len(seen)] == seen
        assert again[-1].type == "response.failed"
        upstream.script = scripts.good()
        await client.responses.create(model="lab/tiny", input="Go on.", previous_response_id=cut.id)
        assert upstream.last.body["messages"][1]["content"] == cut.output_text
    await rest.close()
    assert await mesh.stop() == 0


async def _agent(client: Any) -> str:
    listed = await client.models.list()
    return str(next(each.id for each in listed.data if each.id.startswith("agent/")))


async def test_an_agents_responses_follow_each_other(client: Any, upstream: ScriptedOpenAi) -> None:
    agent = await _agent(client)
    first = await client.responses.create(model=agent, input="My name is Ada.")
    second = await client.responses.create(
        model=agent, input="What is my name?", previous_response_id=first.id
    )
    assert second.previous_response_id == first.id
    said = [each["content"] for each in upstream.last.body["messages"][1:]]
    assert said == ["My name is Ada.", "Hello, world.", "What is my name?"]
    kept = await client.responses.retrieve(second.id)
    assert (kept.status, kept.output_text) == ("completed", "Hello, world.")
    (item,) = (await client.responses.input_items.list(second.id)).data
    assert item.content[0].text == "What is my name?"
    with pytest.raises(openai.BadRequestError):
        await client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_run_00000000000000000000000000")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("nothing")


@pytest.mark.parametrize("kind", ["model", "agent"])
async def test_in_the_background_and_taken_up_again(
    client: Any, upstream: ScriptedOpenAi, kind: str
) -> None:
    upstream.script = scripts.good([f"w{number} " for number in range(40)], pace=0.05)
    name = "lab/tiny" if kind == "model" else await _agent(client)
    begun = await client.responses.create(model=name, input="Count.", background=True)
    assert begun.status == "in_progress"
    stream = await client.responses.retrieve(begun.id, stream=True)
    seen = []
    async for event in stream:
        seen.append(event)
        if len(seen) == 8:
            break
    await stream.close()
    last = seen[-1].sequence_number
    stream = await client.responses.retrieve(begun.id, stream=True, starting_after=last)
    seen += [event async for event in stream]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    text = "".join(each.delta for each in seen if each.type == "response.output_text.delta")
    assert text == "".join(f"w{number} " for number in range(40))
    assert seen[-1].type == "response.completed"
    assert (await client.responses.retrieve(begun.id)).output_text == text
    last = seen[-1].sequence_number
    stream = await client.responses.retrieve(begun.id, stream=True, starting_after=last)
    assert [event async for event in stream] == []


@pytest.mark.parametrize("kind", ["model", "agent"])
async def test_cancelling(client: Any, upstream: ScriptedOpenAi, kind: str) -> None:
    upstream.script = scripts.hang(("Hello",))
    name = "lab/tiny" if kind == "model" else await _agent(client)
    begun = await client.responses.create(model=name, input="Go on.", background=True)
    await upstream.received()
    cancelled = await client.responses.cancel(begun.id)
    assert cancelled.status == "cancelled"
    await asyncio.wait_for(upstream.last.gone.wait(), 5)


async def test_what_is_not_done_is_refused_by_name(client: Any) -> None:
    for field, value in (
        ("background", "yes"),
        ("previous_response_id", "resp_run_1"),
        ("conversation", "conv_1"),
        ("include", ["file_search_call.results"]),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="lab/tiny", input="Hi", **{field: value})
        assert refused.value.param == field
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="lab/tiny", input="Hi", tools=[{"type": "web_search"}])
    assert refused.value.param == "tools[0].type"
