"""OpenAI's own client, unmodified, against a running mesh of each shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from plexus.llm.v1 import provider_pb2, provider_service_pb2
from pydantic import BaseModel

from tests.e2e.callers import Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.scripted_openai import ScriptedOpenAi

QUESTION = [{"role": "user", "content": "Hello?"}]
MODELS = [
    provider_pb2.ProviderModel(
        name="tiny",
        capabilities=[
            provider_pb2.CAPABILITY_TOOLS,
            provider_pb2.CAPABILITY_JSON,
            provider_pb2.CAPABILITY_VISION,
        ],
    ),
    provider_pb2.ProviderModel(name="vectors", capabilities=[provider_pb2.CAPABILITY_EMBEDDINGS]),
]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedOpenAi]:
    """A model server with scripts."""
    async with ScriptedOpenAi() as server:
        yield server


@pytest.fixture
async def client(
    mesh: Mesh, rest: Rest, upstream: ScriptedOpenAi
) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client of somebody whose tenant has a provider `lab`."""
    await sign_up(rest)
    await provide(rest, upstream)
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key=rest.token, max_retries=0
    ) as found:
        yield found


async def provide(rest: Rest, upstream: ScriptedOpenAi) -> None:
    """Make a model server the tenant's provider `lab`."""
    await rest.unary(
        "llm.v1.ProviderService/CreateProvider",
        provider_service_pb2.CreateProviderRequest(
            name="lab", spec=provider_pb2.ProviderSpec(base_url=upstream.url, models=MODELS)
        ),
        provider_service_pb2.CreateProviderResponse,
    )


async def test_models_are_listed(client: Any) -> None:
    names = [each.id async for each in await client.models.list()]
    assert names[:3] == ["lab/tiny", "lab/vectors", "offline/extractive"]
    assert "route/default" in names
    assert any(each.startswith("agent/") for each in names)
    assert (await client.models.retrieve("lab/tiny")).owned_by == "lab"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("lab/none")


async def test_a_completion(client: Any, upstream: ScriptedOpenAi) -> None:
    found = await client.chat.completions.create(
        model="lab/tiny",
        messages=[{"role": "system", "content": "Be brief."}, *QUESTION],
        temperature=0.5,
        max_completion_tokens=50,
        extra_body={"an_unknown_field": {"is": "tolerated"}},
    )
    (choice,) = found.choices
    assert (choice.message.content, choice.finish_reason) == ("Hello, world.", "stop")
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (11, 4)
    assert found.model == "lab/tiny"
    assert upstream.last.body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (upstream.last.body["temperature"], upstream.last.body["max_tokens"]) == (0.5, 50)


async def test_a_stream(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.good(pace=0.05)
    stream = await client.chat.completions.create(
        model="lab/tiny",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    said = [each.choices[0].delta.content or "" for each in chunks if each.choices]
    assert "".join(said) == "Hello, world."
    assert len([each for each in said if each]) == 4
    assert [each.choices[0].finish_reason for each in chunks if each.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 15
    assert len({each.id for each in chunks}) == 1


async def _weather(answer: scripts.Answer) -> None:
    await answer.begin()
    await answer.tool(0, "call_1", "weather", "")
    await answer.tool(0, arguments='{"city": ')
    await answer.tool(0, arguments='"Wien"}')
    await answer.chunk(finish="tool_calls")
    await answer.done()


@pytest.mark.parametrize("stream", [False, True])
async def test_functions(client: Any, upstream: ScriptedOpenAi, stream: bool) -> None:
    upstream.script = _weather
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    asked = {"model": "lab/tiny", "messages": QUESTION, "tools": [tool], "tool_choice": "required"}
    if stream:
        async with client.chat.completions.stream(**asked) as events:
            async for _ in events:
                pass
            found = await events.get_final_completion()
    else:
        found = await client.chat.completions.create(**asked)
    (choice,) = found.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.id, call.function.name) == ("call_1", "weather")
    assert json.loads(call.function.arguments) == {"city": "Wien"}
    assert upstream.last.body["tool_choice"] == "required"
    upstream.script = scripts.good(["Sunny."])
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees"}
    said = {
        "role": "assistant",
        "tool_calls": [call.model_dump(include={"id", "type", "function"})],
    }
    found = await client.chat.completions.create(
        model="lab/tiny",
        messages=[*QUESTION, said, answer],
    )
    assert found.choices[0].message.content == "Sunny."
    assert upstream.last.body["messages"][-1] == answer
    assert upstream.last.body["messages"][-2]["tool_calls"][0]["id"] == "call_1"


class City(BaseModel):
    """What is asked for."""

    name: str
    people: int


async def test_structured_output(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.queue = [scripts.good(['{"name": "Wien"}'])]
    upstream.script = scripts.good(['{"name": "Wien", "people": 2000000}'])
    found = await client.chat.completions.parse(
        model="lab/tiny",
        messages=QUESTION,
        response_format=City,
    )
    # The first answer lacked a field, and was put right without the client's knowing.
    assert found.choices[0].message.parsed == City(name="Wien", people=2_000_000)
    assert len(upstream.requests) == 2


async def test_images(client: Any, upstream: ScriptedOpenAi) -> None:
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    content = [{"type": "text", "text": "What is this?"}, shown]
    await client.chat.completions.create(
        model="lab/tiny",
        messages=[{"role": "user", "content": content}],
    )
    assert upstream.last.body["messages"][0]["content"] == content


async def test_vectors(client: Any) -> None:
    found = await client.embeddings.create(model="lab/vectors", input=["one", "three"])
    assert [each.embedding for each in found.data] == [[3.0, 0.0], [5.0, 1.0]]
    assert found.usage.prompt_tokens == 8
    plain = await client.embeddings.create(
        model="lab/vectors", input="one", encoding_format="float", dimensions=3
    )
    assert plain.data[0].embedding == [3.0, 0.0, 1.0]


async def test_errors_are_those_that_the_client_knows(
    mesh: Mesh, client: Any, upstream: ScriptedOpenAi
) -> None:
    async def ask(who: Any = client, **values: object) -> None:
        asked = {"model": "lab/tiny", "messages": QUESTION, **values}
        await who.chat.completions.create(**asked)

    with pytest.raises(openai.NotFoundError) as missing:
        await ask(model="lab/none")
    assert missing.value.code == "model_not_found"
    for field, value in (("n", 2), ("logprobs", True), ("audio", {}), ("temperature", "warm")):
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(**{field: value})
        assert refused.value.param == field
    with pytest.raises(openai.BadRequestError):
        await ask(messages=[{"role": "user", "content": [{"type": "input_audio"}]}])
    upstream.script = scripts.status(400)
    with pytest.raises(openai.BadRequestError):
        await ask()
    upstream.script = scripts.status(503)
    with pytest.raises(openai.InternalServerError) as away:
        await ask()
    assert away.value.status_code == 503
    async with client.with_options(api_key="nobody") as nobody:
        with pytest.raises(openai.AuthenticationError) as stranger:
            await ask(nobody)
    assert stranger.value.type == "authentication_error"


async def test_half_an_answer_never_looks_whole(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.cut()
    stream = await client.chat.completions.create(
        model="lab/tiny",
        messages=QUESTION,
        stream=True,
    )
    chunks = []
    with pytest.raises(openai.APIError) as broken:
        async for chunk in stream:
            chunks.append(chunk)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "Hello, "
    assert not any(each.choices[0].finish_reason for each in chunks)
    assert broken.value.code == "model_unavailable"
    upstream.script = scripts.cut()
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="lab/tiny", messages=QUESTION)


async def test_who_leaves_takes_the_model_along(client: Any, upstream: ScriptedOpenAi) -> None:
    upstream.script = scripts.hang(("Hello",))
    stream = await client.chat.completions.create(
        model="lab/tiny",
        messages=QUESTION,
        stream=True,
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await asyncio.wait_for(upstream.last.gone.wait(), 5)


async def test_an_agent_answers_and_remembers(client: Any, upstream: ScriptedOpenAi) -> None:
    name = next(
        each.id for each in (await client.models.list()).data if each.id.startswith("agent/")
    )
    stream = await client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "My name is Ada."}],
        stream=True,
    )
    session = ""
    async for chunk in stream:
        metadata = (chunk.model_extra or {}).get("metadata") or {}
        session = metadata.get("session_id", session)
    assert session
    found = await client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "What is my name?"}],
        metadata={"session_id": session},
    )
    assert found.choices[0].message.content == "Hello, world."
    said = [each["content"] for each in upstream.last.body["messages"][1:]]
    assert said == ["My name is Ada.", "Hello, world.", "What is my name?"]
    told = await client.chat.completions.create(
        model=name,
        messages=[
            {"role": "user", "content": "The vault opens with code 4711."},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "Which code opens the vault?"},
        ],
    )
    assert told.choices[0].message.content == "Hello, world."
    assert "assistant: Noted." in upstream.last.body["messages"][-1]["content"]
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(
            model=name,
            messages=QUESTION,
            temperature=1,
        )
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="agent/nobody", messages=QUESTION)
