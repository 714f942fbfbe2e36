"""Defects of runs that show when a process ends, stalls, or is told to end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from typing import Any

from tests.faults.planting import Plant, module, replace


def shown_before_kept() -> None:
    """Watchers see events that are not committed yet."""
    runlog = module("agents.runlog")

    def make(original: Any) -> Any:
        async def append(self: Any, live: Any, happenings: tuple[Any, ...]) -> None:
            async with live.appending:
                if live.ended:
                    return
                first = len(live.events) + 1
                events = tuple(
                    runlog.Event(first + place, runlog.clock.now(), each)
                    for place, each in enumerate(happenings)
                )
                live.run = self._after(live, events[-1])
                live.show(events)
                # Long enough for a watcher to have seen it on a busy machine, too.
                await asyncio.sleep(0.5)
                await self._writer.submit(runlog.NewEvents(live.run, events, self._owner))

        return append

    replace(runlog.RunLog, "_append", make)


def runs_of_the_dead_are_left() -> None:
    """Nobody takes up what a process left behind."""
    from services.agents.leases import Leases

    def make(original: Any) -> Any:
        async def take_over(self: Leases) -> list[Any]:
            return []

        return take_over

    replace(Leases, "take_over", make)


def cut_runs_begin_anew() -> None:
    """Whoever takes a run over asks the model again, and writes after what was written."""
    from services.agents.service import AgentsService

    def make(original: Any) -> Any:
        async def end(self: Any, run: Any, *_: Any) -> None:
            live = self._runs.open(run, await self._runs.stored(run))
            try:
                if not live.ended:
                    agent = await self.agent(run.tenant_id, run.agent_id)
                    await self._runner.end(live, await self._runner.answer(live, agent))
            finally:
                self._runs.close(live)

        return end

    replace(AgentsService, "_end_from_store", make)


def text_of_cut_runs_is_dropped() -> None:
    """A run that was taken over ends without the answer that it had."""
    from services.agents.runner import Runner

    def make(original: Any) -> Any:
        async def keep_output(self: Any, live: Any, ending: Any) -> bool:
            if getattr(ending, "reason", "") == "INTERRUPTED":
                return False
            return bool(await original(self, live, ending))

        return keep_output

    replace(Runner, "_keep_output", make)


def keys_are_forgotten() -> None:
    """A repeated idempotency key stands for another run."""
    store = module("agents.store")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def insert_runs(connection: Any, batch: Sequence[Any]) -> Any:
            # The key is kept, or nobody could tell; what is lost is that there is one of it.
            return await original(
                connection,
                [changed(each, idempotency_key=_marked(each)) for each in batch],
            )

        return insert_runs

    replace(store, "insert_runs", make)


def _marked(new: Any) -> str:
    return f"{new.idempotency_key}#{new.run.run_id}" if new.idempotency_key else ""


def repeated_append_is_another_message() -> None:
    """History does not look whether it has a message already."""
    store = module("history.store")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def append(connection: Any, batch: Sequence[Any]) -> Any:
            again = [changed(each, message_id=f"msg_{os.urandom(12).hex()}") for each in batch]
            return await original(connection, again)

        return append

    replace(store, "append", make)


def owner_is_not_asked() -> None:
    """A process writes to runs that another took over, and what it finds there it overwrites."""
    store = module("agents.store")
    from services.agents.tables import run_events, runs
    from services.runtime.db import Connection, upsert

    async def insert_events(connection: Connection, batch: Sequence[Any]) -> Any:
        rows = [store._event(new.run, event) for new in batch for event in new.events]
        put = upsert(connection.dialect.name, run_events).values(rows)
        fresh = {name: put.excluded[name] for name in ("time", "kind", "data")}
        await connection.execute(
            put.on_conflict_do_update(index_elements=["run_id", "sequence"], set_=fresh)
        )
        for new in batch:
            if new.ends:
                end = store.update(runs).where(runs.c.run_id == new.run.run_id)
                await connection.execute(end.values(store._columns(new.run)))
        return [None for _ in batch]

    replace(store, "insert_events", lambda _: insert_events)


def ends_at_once() -> None:
    """A process that is told to end does not let its calls finish."""
    app = module("app")

    async def stop(*_: Any) -> None:
        os._exit(0)

    replace(app, "_stop", lambda _: stop)


def edge_does_not_repeat() -> None:
    """The gateway hands on what a replica that goes away could not answer."""
    routes: Any = __import__("gateway.routes", fromlist=["_retries"])
    none = {"retry_on": "", "num_retries": 0}
    replace(routes, "_retries", lambda _: lambda *_, **__: none)


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        shown_before_kept,
        runs_of_the_dead_are_left,
        cut_runs_begin_anew,
        text_of_cut_runs_is_dropped,
        keys_are_forgotten,
        repeated_append_is_another_message,
        owner_is_not_asked,
        ends_at_once,
        edge_does_not_repeat,
    )
}
