"""Where llm's objects meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from plexus.llm.v1.llm_service_pb2_grpc import add_LlmServiceServicer_to_server

from services.llm.domain import Provider
from services.llm.gate import Gate
from services.llm.providers.offline import OfflineProvider
from services.llm.service import LanguageModels
from services.llm.servicer import LlmServicer
from services.llm.settings import LlmSettings
from services.runtime.module import ModuleContext


@asynccontextmanager
async def build(ctx: ModuleContext) -> AsyncIterator[None]:
    """Make the providers that the settings ask for, and register the servicer.

    Raises:
        pydantic.ValidationError: The settings do not hang together; its text holds no key.
    """
    settings = LlmSettings()
    async with AsyncExitStack() as stack:
        providers: list[Provider] = []
        aliases: dict[str, str] = {}
        if settings.llm_url:
            # Importing the client takes half a second, which only those who use it should pay.
            from services.llm.providers.openai_compatible import OpenAiCompatible

            limit = settings.llm_max_concurrency
            provider = OpenAiCompatible(
                url=settings.llm_url,
                key=settings.llm_key,
                model=settings.llm_model,
                context_window=settings.llm_context_window,
                silence_seconds=settings.llm_silence_seconds,
                gate=Gate(limit, waiting=limit, name="generations"),
            )
            stack.push_async_callback(provider.close)
            providers.append(provider)
            aliases[settings.llm_model] = provider.models[0].name
        offline = OfflineProvider()
        stack.callback(offline.close)
        providers.append(offline)
        models = LanguageModels(providers, aliases)
        add_LlmServiceServicer_to_server(LlmServicer(models), ctx.server)
        ctx.drains.append(models.drain)
        yield
