"""Connections to providers: made when they are first needed, closed when they are replaced."""

from __future__ import annotations

import asyncio
import importlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from services.llm.domain.configuration import (
    DEFAULT_CONCURRENCY,
    DEFAULT_SILENCE,
    OFFLINE,
    Provider,
)
from services.llm.domain.generation import Backend
from services.llm.gate import Gate
from services.llm.providers.offline import OfflineProvider
from services.runtime.crypto import MasterKey
from services.runtime.egress import Egress

_MAX_OPEN = 256
_CLIENT = "services.llm.providers.openai_compatible"


@dataclass(slots=True)
class _Open:
    backend: Backend
    users: int = 0
    dropped: bool = False


class Backends:
    """One connection pool for each version of each provider; those used last stay open."""

    def __init__(self, master_key: MasterKey, egress: Egress, offline: OfflineProvider) -> None:
        """Prepare; nothing is opened yet.

        Args:
            master_key: Opens the providers' keys.
            egress: Judges the addresses of tenants' providers.
            offline: The built-in provider.
        """
        self._master_key = master_key
        self._egress = egress
        self._offline = offline
        self._open: OrderedDict[tuple[str, int], _Open] = OrderedDict()

    @asynccontextmanager
    async def of(self, provider: Provider) -> AsyncIterator[Backend]:
        """The connection to a provider, which stays open as long as the block runs."""
        if provider.provider_id == OFFLINE:
            yield self._offline
            return
        key = (provider.provider_id, provider.version)
        if key not in self._open:
            # Importing the client takes half a second, which only those who use it should pay.
            await asyncio.to_thread(importlib.import_module, _CLIENT)
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = _Open(self._make(provider))
        self._open.move_to_end(key)
        found.users += 1
        try:
            await self._drop_some()
            yield found.backend
        finally:
            found.users -= 1
            if found.dropped and not found.users:
                await found.backend.close()

    async def _drop_some(self) -> None:
        while len(self._open) > _MAX_OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.dropped = True
            if not oldest.users:
                await oldest.backend.close()

    def _make(self, provider: Provider) -> Backend:
        from services.llm.providers.openai_compatible import OpenAiCompatible

        limit = provider.limits.max_concurrency or DEFAULT_CONCURRENCY
        sealed = provider.sealed_key
        key = self._master_key.disclose(sealed, about_key(provider.provider_id)) if sealed else b""
        return OpenAiCompatible(
            url=provider.base_url,
            key=SecretStr(key.decode()),
            silence_seconds=provider.limits.silence_seconds or DEFAULT_SILENCE,
            gate=Gate(limit, waiting=limit, name="generations"),
            # What the operator configured is trusted to be where it should be.
            egress=None if provider.shared else self._egress,
        )

    async def close(self) -> None:
        """Close them all."""
        for each in self._open.values():
            await each.backend.close()
        self._open.clear()


def about_key(provider_id: str) -> str:
    """What a provider's key is sealed as."""
    return f"llm/provider/{provider_id}"
