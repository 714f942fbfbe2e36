"""A model server of others' making behind ours: what it says, it says through us.

Asked for the likeliest words alone, it says the same each time: so what OpenAI's client hears from
the server itself is what it must hear from a mesh before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from plexus.llm.v1 import provider_pb2, provider_service_pb2
from pydantic import BaseModel

from tests.e2e.callers import Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.llama.server import llama_server
from tests.llama.tiny import WINDOW

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüß Gott 👋"}]
OURS, THEIRS = "llama/tiny", "tiny"
MODEL = provider_pb2.ProviderModel(
    name=THEIRS,
    context_window=WINDOW,
    capabilities=[provider_pb2.CAPABILITY_JSON, provider_pb2.CAPABILITY_EMBEDDINGS],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's server."""
    with asyncio.Runner() as runner:
        running = llama_server(tmp_path_factory.mktemp("llama"))
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture
async def theirs(server: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client of the server itself."""
    async with openai.AsyncOpenAI(base_url=server, api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture
async def ours(mesh: Mesh, rest: Rest, server: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client of a mesh whose tenant has the server as a provider."""
    await sign_up(rest)
    await rest.unary(
        "llm.v1.ProviderService/CreateProvider",
        provider_service_pb2.CreateProviderRequest(
            name="llama", spec=provider_pb2.ProviderSpec(base_url=server, models=[MODEL])
        ),
        provider_service_pb2.CreateProviderResponse,
    )
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key=rest.token, max_retries=0
    ) as found:
        yield found


async def said(client: Any, model: str, **asked: Any) -> tuple[str, str, int, int]:
    """A whole answer: its text, how it ended, and its tokens."""
    found = await client.chat.completions.create(
        model=model, **{"messages": QUESTION, "temperature": 0, "max_tokens": 40, **asked}
    )
    (choice,) = found.choices
    usage = found.usage
    return (
        choice.message.content,
        choice.finish_reason,
        usage.prompt_tokens,
        usage.completion_tokens,
    )


async def streamed(client: Any, model: str, **asked: Any) -> tuple[str, str, int, int]:
    """The same, streamed."""
    stream = await client.chat.completions.create(
        model=model,
        stream=True,
        stream_options={"include_usage": True},
        **{"messages": QUESTION, "temperature": 0, "max_tokens": 40, **asked},
    )
    text, reason, usage = "", "", None
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        usage = chunk.usage or usage
    assert usage is not None
    return text, reason, usage.prompt_tokens, usage.completion_tokens


async def test_what_it_says_is_what_is_heard(ours: Any, theirs: Any) -> None:
    expected = await said(theirs, THEIRS)
    assert expected[1] == "length"
    assert expected[0].count("word") == expected[3] == 40
    assert await said(ours, OURS) == expected
    assert await streamed(ours, OURS) == expected == await streamed(theirs, THEIRS)


async def test_it_stops_where_it_shall(ours: Any, theirs: Any) -> None:
    (text, *_) = await said(theirs, THEIRS)
    stop = text.split()[5]
    expected = await said(theirs, THEIRS, stop=[stop])
    assert expected[1] == "stop"
    assert await said(ours, OURS, stop=[stop]) == expected
    assert await streamed(ours, OURS, stop=[stop]) == expected


class Verdict(BaseModel):
    """What it is asked for."""

    good: bool
    stars: int


async def test_an_answer_of_a_form(ours: Any) -> None:
    found = await ours.chat.completions.parse(
        model=OURS, messages=QUESTION, temperature=0, max_tokens=400, response_format=Verdict
    )
    assert isinstance(found.choices[0].message.parsed, Verdict)


async def test_vectors(ours: Any, theirs: Any) -> None:
    texts = ["one", "another"]
    mine = await ours.embeddings.create(model=OURS, input=texts, encoding_format="float")
    own = await theirs.embeddings.create(model=THEIRS, input=texts, encoding_format="float")
    for one, other in zip(mine.data, own.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)


async def test_what_it_cannot_hold_is_refused(ours: Any, theirs: Any) -> None:
    long = [{"role": "user", "content": "?" * (3 * WINDOW)}]
    with pytest.raises(openai.BadRequestError):
        await said(theirs, THEIRS, messages=long)
    with pytest.raises(openai.BadRequestError):
        await said(ours, OURS, messages=long)


async def test_who_goes_frees_its_place(ours: Any, theirs: Any) -> None:
    for _ in range(6):  # more than it serves at a time
        stream = await ours.chat.completions.create(
            model=OURS, messages=QUESTION, max_tokens=WINDOW - 200, stream=True
        )
        async for _chunk in stream:
            break
        await stream.close()
    async with asyncio.timeout(10):
        assert (await said(ours, OURS))[3] == 40


async def test_an_agent_speaks_by_it(ours: Any) -> None:
    found = await ours.chat.completions.create(
        model="agent/default", messages=[{"role": "user", "content": "Hello"}]
    )
    assert "word" in found.choices[0].message.content
