"""Ways to ask a provider, and to look at what comes back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from services.llm.domain import Delta, Event, Failed, Message, Prompt, Role, Started
from services.llm.providers.openai_compatible import OpenAiCompatible
from services.llm.service import LanguageModels
from services.runtime.errors import PlexusError

PROMPT = Prompt(
    [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Yes?")]
)


def generate(provider: OpenAiCompatible, prompt: Prompt = PROMPT) -> AsyncGenerator[Event, None]:
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
