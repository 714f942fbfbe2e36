"""What history does by itself: consolidates sessions, and tells memory of the facts it found."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from services.history import proposal_store, store, summary_store
from services.history.domain.sessions import Message
from services.history.domain.summary import KEEP_MESSAGES, Consolidation
from services.history.ports import Memory, Reader
from services.history.proposal_store import Proposal
from services.history.reading import Reading, room_of
from services.history.summaries import SummaryService
from services.history.summary_store import Taken
from services.history.window import within
from services.runtime import clock, log
from services.runtime.context import acting_as, mesh_principal
from services.runtime.db import EVERYONE, Database
from services.runtime.errors import PlexusError
from services.runtime.leases import RENEW_SECONDS, Lease
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
_MAX_WORK = 4
_MAX_STEP_MESSAGES = 200
# A session whose consolidation takes its process with it is let go at last.
_MAX_ATTEMPTS = 5
_MAX_TOUCHED = 10_000
_SWEEP_SECONDS = 5.0
_SWEPT = 100
_FIRST_PAUSE = 5 * clock.SECOND
_MAX_PROPOSING = 8
_PROPOSED_AT_ONCE = 20
_PROPOSE_SECONDS = 10.0


class Consolidator:
    """Takes up consolidations that nobody works on, some at a time, and carries them on."""

    def __init__(self, database: Database, lease: Lease, reading: Reading, tasks: Tasks) -> None:
        self._database = database
        self._lease = lease
        self._reading = reading
        self._tasks = tasks
        self._work: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def wake(self) -> None:
        """There is something to do."""
        self._news.set()

    async def keep_working(self) -> None:
        """Take up what waits, and renew this process's lease while it has any work."""
        while True:
            self._news.clear()
            try:
                if self._work:
                    await self._lease.renew()
                await self._take_up()
            except (PlexusError, TimeoutError) as error:
                # Soon again: a longer pause would cost the lease.
                _logger.warning("lease_not_renewed", error=repr(error))
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _take_up(self) -> None:
        owner = self._lease.owner
        async with self._database.read(EVERYONE) as connection:
            dead = await self._lease.silent(connection)
            limit = _MAX_WORK + len(self._work)
            found = await summary_store.claimable(connection, owner, dead, limit)
        waiting = [each for each in found if each[0] not in self._work]
        waiting = waiting[: _MAX_WORK - len(self._work)]
        if not waiting:
            return
        # Whoever has no work lets the lease run out: it costs a write each time.
        await self._lease.renew()
        claimed = []
        async with self._database.transaction(EVERYONE) as connection:
            await self._lease.bury(connection, dead)
            for session_id, tenant_id, before in waiting:
                if await summary_store.claim(connection, session_id, before, owner):
                    claimed.append((tenant_id, session_id))
        for tenant_id, session_id in claimed:
            work = self._carry(tenant_id, session_id)
            task = self._tasks.start(f"consolidation {session_id}", work)
            self._work[session_id] = task
            task.add_done_callback(partial(self._ended, session_id))

    def _ended(self, session_id: str, _: object) -> None:
        del self._work[session_id]
        self.wake()

    async def _carry(self, tenant_id: str, session_id: str) -> None:
        try:
            async with self._database.read((tenant_id,)) as connection:
                at = await summary_store.find(connection, tenant_id, session_id)
            if at is None:
                return
            with acting_as(mesh_principal(tenant_id, at.user_id)):
                await self._consolidate(at)
        except Taken:
            _logger.info("consolidation_taken", session=session_id)
        except (PlexusError, TimeoutError) as error:
            # It is still to be done, by whoever looks next.
            _logger.warning("consolidation_let_go", session=session_id, error=repr(error))

    async def _consolidate(self, at: Consolidation) -> None:
        if at.attempts > _MAX_ATTEMPTS:
            await self._end(at, "It was tried again and again, and did not get on.")
            return
        try:
            reader = await self._reading.reader(at.model)
        except PlexusError as error:
            await self._end(at, error.message)
            return
        while messages := await self._next(at, reader):
            at = await self._step(at, reader, messages)
        await self._end(at)

    async def _next(self, at: Consolidation, reader: Reader | None) -> Sequence[Message]:
        """The messages that come next and fit a step."""
        async with self._database.read((at.tenant_id,)) as connection:
            session = await store.get_session(connection, at.tenant_id, at.session_id)
            left = session.message_count - at.keep_messages - at.through_place
            if left <= 0:
                return ()
            sizes = await store.list_sizes(
                connection,
                at.tenant_id,
                at.session_id,
                after=at.through_place,
                limit=min(left, _MAX_STEP_MESSAGES),
            )
            last = sizes[within(sizes, room_of(reader)) - 1][0]
            return await store.get_messages(
                connection, at.tenant_id, at.session_id, at.through_place + 1, last
            )

    async def _step(
        self, at: Consolidation, reader: Reader | None, messages: Sequence[Message]
    ) -> Consolidation:
        taking = await self._reading.take_in(
            reader, at.summary, at.dropped, messages, at.through_message_id
        )
        now = replace(
            at,
            summary=taking.summary,
            dropped=taking.dropped,
            through_place=messages[-1].place,
            through_message_id=messages[-1].message_id,
            tokens_before=at.tokens_before + taking.tokens_of_messages,
            tokens_after=taking.tokens_of_summary,
            update_time=clock.now(),
        )
        async with self._database.transaction((at.tenant_id,)) as connection:
            await summary_store.advance(connection, at, now, self._lease.owner, taking.findings)
        return now

    async def _end(self, at: Consolidation, failure: str = "") -> None:
        async with self._database.transaction((at.tenant_id,)) as connection:
            await summary_store.end(connection, at, self._lease.owner, failure)


class Watcher:
    """Finds sessions that became long, away from the path of those who append to them."""

    def __init__(self, database: Database, service: SummaryService, tokens: int) -> None:
        self._database = database
        self._service = service
        self._tokens = tokens
        self._touched: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._after = ""

    def touched(self, tenant_id: str, session_id: str) -> None:
        """A message was added to a session."""
        self._touched[tenant_id, session_id] = None
        if len(self._touched) > _MAX_TOUCHED:
            # The sweep comes by it.
            self._touched.popitem(last=False)

    async def keep_watching(self) -> None:
        """Look at the sessions that were added to, and bit by bit at all: some grew elsewhere."""
        while True:
            await self.look()
            await asyncio.sleep(_SWEEP_SECONDS)

    async def look(self) -> None:
        """Look at those that were added to, and at the next of all."""
        touched, self._touched = self._touched, OrderedDict()
        async with self._database.read(EVERYONE) as connection:
            found, self._after = await summary_store.behind(
                connection, self._after, KEEP_MESSAGES, _SWEPT
            )
        for tenant_id, session_id in dict.fromkeys((*touched, *found)):
            await self._service.consolidate_if_long(tenant_id, session_id, self._tokens)


class Proposer:
    """Proposes the facts that consolidations found to memory, some times over where it is away."""

    def __init__(self, database: Database, memory: Memory) -> None:
        self._database = database
        self._memory = memory

    async def keep_proposing(self) -> None:
        """Propose what is due, now and then."""
        while True:
            await self.propose_due()
            await asyncio.sleep(1)

    async def propose_due(self) -> None:
        """Propose what is due."""
        async with self._database.read(EVERYONE) as connection:
            found = await proposal_store.due(connection, clock.now(), _PROPOSED_AT_ONCE)
        for proposal in found:
            again = clock.now() + (_FIRST_PAUSE << proposal.attempts)
            async with self._database.transaction((proposal.tenant_id,)) as connection:
                taken = await proposal_store.take(connection, proposal, again)
            if taken:
                await self._propose(proposal)

    async def _propose(self, proposal: Proposal) -> None:
        count = 0
        try:
            with acting_as(mesh_principal(proposal.tenant_id, proposal.user_id)):
                async with asyncio.timeout(_PROPOSE_SECONDS):
                    count = await self._memory.propose(
                        proposal.user_id, proposal.findings, proposal.key
                    )
        except (PlexusError, TimeoutError) as error:
            if proposal.attempts + 1 < _MAX_PROPOSING:
                _logger.info("facts_not_proposed", key=proposal.key, error=repr(error))
                return
            _logger.warning("facts_given_up", key=proposal.key, error=repr(error))
        async with self._database.transaction((proposal.tenant_id,)) as connection:
            await proposal_store.forget(connection, proposal, count)
