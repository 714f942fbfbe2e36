"""Ways to ask a provider, and to look at what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from services.llm.domain.generation import (
    Delta,
    Event,
    Failed,
    Message,
    Prompt,
    Role,
    Started,
    Usage,
)
from services.llm.providers.openai_compatible import OpenAiCompatible
from services.runtime.errors import PlexusError

PROMPT = Prompt(
    [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Yes?")]
)


async def generate(
    provider: OpenAiCompatible, prompt: Prompt = PROMPT
) -> AsyncGenerator[Event, None]:
    """What the provider does, as events."""
    async with provider.answer("tiny", prompt) as pieces:
        yield Started("openai/tiny")
        try:
            async for piece in pieces:
                yield piece
        except PlexusError as error:
            yield Failed(error, Usage(0, 0, estimated=True))


def due_in(seconds: float) -> Prompt:
    """A prompt that must be answered by then."""
    return replace(PROMPT, due=asyncio.get_running_loop().time() + seconds)


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
