"""Defects by which something happens twice, or an answer depends on who asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.faults.planting import Plant, module, replace


def keys_are_forgotten() -> None:
    """What comes under a key is a run of its own, each time."""
    store = module("agents.store")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def insert_runs(connection: Any, batch: Any) -> Any:
            own = [
                dataclasses.replace(new, idempotency_key=f"{new.run.run_id}/{new.idempotency_key}")
                for new in batch
            ]
            return await original(connection, own)

        return insert_runs

    replace(store, "insert_runs", make)


def keys_of_each_process() -> None:
    """A key is known to the process that took it, and not to the other replicas."""
    store = module("agents.store")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def insert_runs(connection: Any, batch: Any) -> Any:
            own = [
                dataclasses.replace(new, idempotency_key=f"{new.owner}/{new.idempotency_key}")
                for new in batch
            ]
            return await original(connection, own)

        return insert_runs

    replace(store, "insert_runs", make)


def payloads_are_not_compared() -> None:
    """A key stands for whatever comes under it."""
    service = module("agents.service")
    replace(service.Asked, "digest", lambda _: property(lambda self: "same"))


def repeats_get_the_rest() -> None:
    """Who asks again while a run is under way gets what is still to come."""
    from services.agents.service import AgentsService

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def watch(self: Any, tenant_id: str, run_id: str, after: int) -> AsyncIterator[Any]:
            seen = self.__dict__.setdefault("_seen", set())
            skip = 2 if run_id in seen else after
            seen.add(run_id)
            async for event in original(self, tenant_id, run_id, skip):
                yield event

        return watch

    replace(AgentsService, "watch", make)


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        keys_are_forgotten,
        keys_of_each_process,
        payloads_are_not_compared,
        repeats_get_the_rest,
    )
}
