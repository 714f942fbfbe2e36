"""Servers and providers for the tests of llm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr

from services.llm.gate import Gate
from services.llm.providers.openai_compatible import OpenAiCompatible
from tests.services.llm.scripted_openai import ScriptedOpenAi

KEY = "sk-very-secret"
MakeProvider = Callable[..., OpenAiCompatible]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the machine's owner set reaches a test."""
    for name in ("URL", "KEY", "MODEL", "CONTEXT_WINDOW", "MAX_CONCURRENCY", "SILENCE_SECONDS"):
        monkeypatch.delenv(f"PLEXUS_LLM_{name}", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedOpenAi]:
    """A model server with scripts."""
    async with ScriptedOpenAi() as server:
        yield server


@pytest.fixture
async def provider_of(upstream: ScriptedOpenAi) -> AsyncIterator[MakeProvider]:
    """Makes providers that call the model server, unless told otherwise."""
    async with AsyncExitStack() as stack:

        def make(
            *,
            url: str | None = None,
            key: str = KEY,
            silence: float = 5.0,
            limit: int = 8,
            waiting: int = 8,
        ) -> OpenAiCompatible:
            provider = OpenAiCompatible(
                url=upstream.url if url is None else url,
                key=SecretStr(key),
                silence_seconds=silence,
                gate=Gate(limit, waiting, "generations"),
            )
            stack.push_async_callback(provider.close)
            return provider

        yield make
