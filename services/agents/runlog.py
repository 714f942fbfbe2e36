"""The events of runs: kept first, then shown to whoever watches.

A run that this process carries is also here in memory, so that watchers read what is committed
without asking the database. Any other run is read from the database, when there is news of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from services.agents import store
from services.agents.domain import (
    Event,
    Failed,
    Happening,
    Run,
    Usage,
    end_state,
    text_of,
)
from services.agents.store import NewEvents
from services.runtime import clock
from services.runtime.db import Database
from services.runtime.errors import PlexusError, Unavailable
from services.runtime.groups import GroupWriter
from services.runtime.shared import Notices, Subscription

_PAGE = 500
# A run that another process carries is looked at this often; with news of it, as a precaution.
_POLL_SECONDS = 0.2
_NOTIFIED_POLL_SECONDS = 2.0


class LiveRun:
    """A run that this process carries."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events: list[Event] = []
        self.usage: Usage | None = None
        self.appending = asyncio.Lock()
        # Whether the store failed in a way that leaves open what it kept.
        self.in_doubt = False
        self._news = asyncio.Event()
        self._left = False

    @property
    def ended(self) -> bool:
        """Whether its last event is kept."""
        return bool(self.events) and self.events[-1].is_last

    def show(self, events: tuple[Event, ...]) -> None:
        """Make committed events visible."""
        self.events.extend(events)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def leave(self) -> None:
        """Carry it no longer; whoever follows must look elsewhere."""
        self._left = True
        self._news.set()

    async def follow(self, after: int) -> AsyncIterator[Event]:
        """Events after a sequence, until the last one or until it is carried no longer."""
        while True:
            news = self._news
            for event in self.events[after:]:
                yield event
                after = event.sequence
            if after < len(self.events):
                continue  # more came while these were on their way
            if self.ended or self._left:
                return
            await news.wait()


class RunLog:
    """Keeps events and finds them again."""

    def __init__(
        self,
        database: Database,
        writer: GroupWriter[NewEvents, None],
        notices: Notices,
        owner: str,
    ) -> None:
        """Prepare a log.

        Args:
            database: Where runs are kept.
            writer: Keeps events.
            notices: Tells other processes of new ones.
            owner: Whose runs this process may write to: its own.
        """
        self._database = database
        self._writer = writer
        self._notices = notices
        self._owner = owner
        self._live: dict[str, LiveRun] = {}

    def open(self, run: Run, events: Sequence[Event]) -> LiveRun:
        """Begin to carry a run that has these events."""
        live = self._live[run.run_id] = LiveRun(run)
        live.show(tuple(events))
        return live

    def close(self, live: LiveRun) -> None:
        """Stop carrying a run, ended or not."""
        if self._live.get(live.run.run_id) is live:
            del self._live[live.run.run_id]
        live.leave()

    async def append(self, live: LiveRun, *happenings: Happening) -> None:
        """Keep what happened, then show it.

        A caller that is cancelled meanwhile cannot part the two: what is kept is also shown.

        Raises:
            Unavailable: The database cannot serve now; what it kept is shown with the next events.
            ResourceExhausted: The disk is full, or too much waits; nothing was kept.
            RunTaken: Another process carries the run.
        """
        await asyncio.shield(asyncio.ensure_future(self._append(live, happenings)))

    async def settle(self, live: LiveRun) -> None:
        """Show everything that is kept, also what the store kept without saying so.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with live.appending:
            await self._settle(live)

    async def _settle(self, live: LiveRun) -> None:
        if live.in_doubt:
            live.show(tuple(await self._newer(live)))
            live.in_doubt = False

    async def _append(self, live: LiveRun, happenings: tuple[Happening, ...]) -> None:
        async with live.appending:
            await self._settle(live)
            if live.ended:
                return
            now = clock.now()
            first = len(live.events) + 1
            events = tuple(
                Event(first + index, now, happening) for index, happening in enumerate(happenings)
            )
            for happening in happenings:
                if isinstance(happening, Usage):
                    live.usage = happening
            run = self._after(live, events[-1])
            try:
                await self._writer.submit(NewEvents(run, events, self._owner))
            except BaseException as error:
                live.in_doubt = not certain(error)
                raise
            live.run = run
            live.show(events)
            await self._notices.publish(_topic(run.run_id))

    async def _newer(self, live: LiveRun) -> list[Event]:
        """Events that are kept and were not shown, since the store did not say so."""
        events = list(live.events)
        while page := await self._page(live.run, len(events)):
            events += page
        return events[len(live.events) :]

    def _after(self, live: LiveRun, last: Event) -> Run:
        state = end_state(last.happening)
        if state is None:
            return live.run
        return replace(
            live.run,
            state=state,
            output=text_of(live.events),
            failure=last.happening if isinstance(last.happening, Failed) else None,
            usage=live.usage,
            last_sequence=last.sequence,
            end_time=last.time,
        )

    async def run(self, tenant_id: str, run_id: str) -> Run:
        """A run as it stands.

        Raises:
            NotFound: This tenant has none of this id.
        """
        live = self._live.get(run_id)
        if live is not None and live.run.tenant_id == tenant_id:
            return _as_it_stands(live.run, live.events)
        async with self._database.read((tenant_id,)) as connection:
            run = await store.get_run(connection, tenant_id, run_id)
            if run.end_time is not None:
                return run
        return _as_it_stands(run, await self.stored(run))

    async def stored(self, run: Run) -> list[Event]:
        """Every event of a run that is kept."""
        events: list[Event] = []
        while True:
            page = await self._page(run, len(events))
            events += page
            if len(page) < _PAGE:
                return events

    async def _page(self, run: Run, after: int) -> list[Event]:
        async with self._database.read((run.tenant_id,)) as connection:
            return await store.list_events(connection, run.tenant_id, run.run_id, after, _PAGE)

    async def watch(self, tenant_id: str, run_id: str, after: int) -> AsyncIterator[Event]:
        """A run's events after a sequence, past and to come, until the last one.

        Raises:
            NotFound: This tenant has no such run.
        """
        async with self._database.read((tenant_id,)) as connection:
            run = await store.get_run(connection, tenant_id, run_id)
        while True:
            live = self._live.get(run_id)
            if live is None:
                # Of whoever carries it; or of nobody, until it is taken up, perhaps here.
                async with self._notices.subscribe(_topic(run_id)) as news:
                    async for event in self._elsewhere(run, after, news):
                        yield event
                        after = event.sequence
                        if event.is_last:
                            return
                live = self._live.get(run_id)
                if live is None:
                    # It ended, or was taken up and let go of in between.
                    async with self._database.read((tenant_id,)) as connection:
                        run = await store.get_run(connection, tenant_id, run_id)
                    if run.end_time is not None and after >= run.last_sequence:
                        return
                    continue
            async for event in live.follow(after):
                yield event
                after = event.sequence
            if live.ended:
                return

    async def _elsewhere(self, run: Run, after: int, news: Subscription) -> AsyncIterator[Event]:
        """Events of a run from the database, until its last or until this process carries it."""
        while run.run_id not in self._live:
            page = await self._page(run, after)
            for event in page:
                yield event
                after = event.sequence
            if page:
                continue
            if run.end_time is not None:
                return
            await news.wait(_NOTIFIED_POLL_SECONDS if self._notices.working else _POLL_SECONDS)
            async with self._database.read((run.tenant_id,)) as connection:
                run = await store.get_run(connection, run.tenant_id, run.run_id)


def certain(error: BaseException) -> bool:
    """Whether a store that raised this kept nothing; a lost reply to a commit is not certain."""
    return isinstance(error, PlexusError) and not isinstance(error, Unavailable)


def _topic(run_id: str) -> str:
    return f"agents.runs.{run_id}"


def _as_it_stands(run: Run, events: list[Event]) -> Run:
    if run.end_time is not None:
        return run
    usages = [event.happening for event in events if isinstance(event.happening, Usage)]
    return replace(
        run,
        output=text_of(events),
        usage=usages[-1] if usages else None,
        last_sequence=len(events),
    )
