"""What can be done with agents and runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.agents import store
from services.agents.domain import (
    DEFAULT_INSTRUCTIONS,
    DEFAULT_NAME,
    Agent,
    Cancelled,
    Ending,
    Event,
    NewRun,
    Run,
    RunState,
    RunTaken,
)
from services.agents.leases import Leases, Left
from services.agents.ports import History
from services.agents.runlog import LiveRun, RunLog, certain
from services.agents.runner import INTERRUPTED, Carrier, Last, Runner
from services.agents.settings import AgentsSettings
from services.runtime import clock, log, paging
from services.runtime.context import CallContext, Principal, acting_as, current, mesh_principal
from services.runtime.db import Database
from services.runtime.errors import PlexusError, ResourceExhausted, Unavailable
from services.runtime.groups import GroupWriter
from services.runtime.ids import new_id
from services.runtime.leases import RENEW_SECONDS
from services.runtime.shared import Notices
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
_RECOVERIES = 16
_ENDING_SECONDS = 2.0
# A commit whose reply was lost may still happen for so long.
_DOUBT_SECONDS = 60.0
# The topic of requests to cancel a run that another process carries.
_CANCELS = "agents.cancels"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants answered."""

    input: str
    agent_id: str
    session_id: str
    idempotency_key: str

    @property
    def digest(self) -> str:
        """What makes two requests under one key the same."""
        parts = json.dumps([self.input, self.agent_id, self.session_id])
        return hashlib.sha256(parts.encode()).hexdigest()


class AgentsService:
    """Finds agents; starts, watches, cancels, drains and recovers runs."""

    def __init__(
        self,
        settings: AgentsSettings,
        database: Database,
        writer: GroupWriter[NewRun, Run],
        runs: RunLog,
        runner: Runner,
        history: History,
        tasks: Tasks,
        leases: Leases,
        notices: Notices,
    ) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._runs = runs
        self._runner = runner
        self._history = history
        self._tasks = tasks
        self._leases = leases
        self._notices = notices
        self._carriers: dict[str, Carrier] = {}
        self._work: set[asyncio.Task[Any]] = set()
        self._accepting: set[str] = set()
        # Runs that may have been accepted without our knowing, and until when that can be.
        self._doubted: dict[str, float] = {}
        self._draining = False

    async def agent(self, tenant_id: str, agent_id: str) -> Agent:
        """One agent; the tenant's default one for an empty id.

        Raises:
            NotFound: This tenant has none of this id.
        """
        async with self._database.read((tenant_id,)) as connection:
            if agent_id:
                return await store.get_agent(connection, tenant_id, agent_id)
            found = await store.default_agent(connection, tenant_id)
        return found or await self._found_default(tenant_id)

    async def _found_default(self, tenant_id: str) -> Agent:
        """Every tenant has a default agent; it is made when it is first asked for."""
        async with self._database.transaction((tenant_id,)) as connection:
            found = await store.default_agent(connection, tenant_id)
            if found is None:
                found = Agent(
                    agent_id=new_id("agt"),
                    tenant_id=tenant_id,
                    display_name=DEFAULT_NAME,
                    instructions=DEFAULT_INSTRUCTIONS,
                    model="",
                    is_default=True,
                    create_time=clock.now(),
                )
                await store.insert_agent(connection, found)
                found = await store.default_agent(connection, tenant_id) or found
        return found

    async def agents(self, tenant_id: str, size: int, token: str) -> tuple[list[Agent], str]:
        """A page of agents, newest first, and the token of the next.

        Raises:
            InvalidRequest: The token is not one of this list.
        """
        await self.agent(tenant_id, "")
        limit = paging.page_size(size)
        before = paging.decode(token, str)
        async with self._database.read((tenant_id,)) as connection:
            found = await store.list_agents(
                connection, tenant_id, before[0] if before else None, limit + 1
            )
        return paging.cut(found, limit, lambda each: (each.agent_id,))

    async def start(self, who: Principal, asked: Asked) -> Run:
        """Accept a run and begin to carry it; a repeated key gives the first run.

        Raises:
            NotFound: The agent or the session is not this tenant's.
            Aborted: The session has another run under way.
            AlreadyExists: The key stands for another request.
            ResourceExhausted: Too many runs are under way.
            Unavailable: This process is about to end.
        """
        agent = await self.agent(who.tenant_id, asked.agent_id)
        if asked.session_id:
            await self._history.require_session(asked.session_id)
        run = Run(
            run_id=new_id("run"),
            tenant_id=who.tenant_id,
            user_id=who.user_id,
            agent_id=agent.agent_id,
            session_id=asked.session_id or new_id("ses"),
            input=asked.input,
            state=RunState.RUNNING,
            output="",
            failure=None,
            usage=None,
            last_sequence=0,
            create_time=clock.now(),
            end_time=None,
        )
        # Of its own: whoever goes away now must not leave an accepted run that nobody carries.
        # A drain waits for it as for the run that it becomes.
        if self._draining:
            raise Unavailable("This process is about to end. Try again.", retry_after=1)
        accepting = asyncio.create_task(self._accept(run, agent, asked, current()))
        self._work.add(accepting)
        accepting.add_done_callback(self._work.discard)
        return await asyncio.shield(accepting)

    async def _accept(self, run: Run, agent: Agent, asked: Asked, cause: CallContext) -> Run:
        new = NewRun(run, asked.idempotency_key, asked.digest, self._leases.owner)
        if len(self._carriers) + len(self._accepting) >= self._settings.max_runs:
            return await self._repeated(new)
        self._accepting.add(run.run_id)
        try:
            accepted = await self._writer.submit(new)
        except BaseException as error:
            if not certain(error):
                now = asyncio.get_running_loop().time()
                self._doubted[run.run_id] = now + _DOUBT_SECONDS
            raise
        finally:
            self._accepting.discard(run.run_id)
        if accepted.run_id == run.run_id:
            live = self._runs.open(run, [new.started])
            carrier = self._carriers[run.run_id] = Carrier(live, agent, self._runner)
            work = self._tasks.start(f"run {run.run_id}", self._carry(carrier, cause))
            self._work.add(work)
            work.add_done_callback(self._work.discard)
        return accepted

    async def _repeated(self, new: NewRun) -> Run:
        """With no room for another run, a repeated key still gives the first one."""
        async with self._database.read((new.run.tenant_id,)) as connection:
            found = await store.find_repeated(connection, new)
        if found is None:
            raise ResourceExhausted(
                "Too many runs are under way. Try again.",
                metadata={"limit": "max_runs"},
                retry_after=1,
            )
        if isinstance(found, PlexusError):
            raise found
        return found

    async def _carry(self, carrier: Carrier, cause: CallContext) -> None:
        run = carrier.live.run
        try:
            with acting_as(mesh_principal(run.tenant_id, run.user_id), cause):
                await carrier.carry(self._settings.run_seconds)
        except RunTaken:
            _logger.warning("run_taken", run=run.run_id)
        except Exception as error:
            _logger.error("run_lost_its_way", run=run.run_id, exc_info=error)
            self._tasks.start(f"rescue {run.run_id}", self.recover([Left(run, "")]))
        finally:
            del self._carriers[run.run_id]
            self._runs.close(carrier.live)

    def watch(self, tenant_id: str, run_id: str, after: int) -> AsyncIterator[Event]:
        """A run's events after a sequence, past and to come, until the last one.

        Raises:
            NotFound: This tenant has no such run.
        """
        return self._runs.watch(tenant_id, run_id, after)

    async def run(self, tenant_id: str, run_id: str) -> Run:
        """A run as it stands.

        Raises:
            NotFound: This tenant has none of this id.
        """
        return await self._runs.run(tenant_id, run_id)

    async def cancel(self, who: Principal, run_id: str) -> Run:
        """Cancel a run if it is under way; returns it when it has ended.

        Raises:
            NotFound: This tenant has none of this id.
        """
        run = await self._runs.run(who.tenant_id, run_id)
        carrier = self._carriers.get(run_id)
        if carrier is not None:
            carrier.stop(Cancelled(cancelled_by=who.actor_id))
        elif run.end_time is None:
            async with self._database.transaction((who.tenant_id,)) as connection:
                await store.ask_cancel(connection, who.tenant_id, run_id, who.actor_id)
            await self._notices.publish(_CANCELS)
        async for _ in self._runs.watch(who.tenant_id, run_id, run.last_sequence):
            pass
        return await self._runs.run(who.tenant_id, run_id)

    async def drain(self, seconds: float) -> None:
        """Take no more runs, let those under way finish for some seconds, then cut them off."""
        self._draining = True
        await self._all_ended(seconds)
        for carrier in list(self._carriers.values()):
            carrier.stop(INTERRUPTED)
        # Their last events are one commit away; a store that refuses leaves them to the next start.
        await self._all_ended(_ENDING_SECONDS)

    async def _all_ended(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        # Looked at again, for what was being accepted becomes a run that is waited for too.
        while self._work and loop.time() < end:
            await asyncio.wait(self._work, timeout=end - loop.time())

    async def keep_lease(self) -> None:
        """Renew this process's lease, obey cancels, and take up what others left behind."""
        async with self._notices.subscribe(_CANCELS) as asked:
            while True:
                try:
                    await self._look_around()
                except (PlexusError, TimeoutError) as error:
                    # Soon again: a longer pause would cost the lease.
                    _logger.warning("lease_not_renewed", error=repr(error))
                await asked.wait(RENEW_SECONDS)

    async def _look_around(self) -> None:
        await self._leases.renew()
        for run_id, actor in await self._leases.cancelled():
            carrier = self._carriers.get(run_id)
            if carrier is not None:
                carrier.stop(Cancelled(cancelled_by=actor))
        if not self._draining:
            left = await self._leases.take_over() + await self._own_in_doubt()
            if left:
                _logger.warning("runs_taken_over", runs=len(left))
                self._tasks.start("agents.recovery", self.recover(left))

    async def _own_in_doubt(self) -> list[Left]:
        """Runs that were accepted though the store did not say so: nobody carries them."""
        if not self._doubted:
            return []
        doubted = dict(self._doubted)
        own = await self._leases.own()
        now = asyncio.get_running_loop().time()
        found = [left for left in own if left.run.run_id in doubted]
        over = [run_id for run_id, end in doubted.items() if end < now]
        for run_id in (*over, *(left.run.run_id for left in found)):
            self._doubted.pop(run_id, None)
        return found

    async def recover(self, left: Sequence[Left]) -> None:
        """End runs that nobody carries, keeping what they wrote."""
        slots = asyncio.Semaphore(_RECOVERIES)

        async def one(each: Left) -> None:
            run = each.run
            ending = Cancelled(each.cancel_by) if each.cancel_by else INTERRUPTED
            async with slots:
                with acting_as(mesh_principal(run.tenant_id, run.user_id)):
                    await self._end_from_store(run, ending)

        ended = await asyncio.gather(*map(one, left), return_exceptions=True)
        now = asyncio.get_running_loop().time()
        for each, error in zip(left, ended, strict=True):
            if isinstance(error, Exception) and not isinstance(error, RunTaken):
                # Its turn comes again: it is still this process's.
                self._doubted[each.run.run_id] = now + _DOUBT_SECONDS
                _logger.error("run_not_recovered", run=each.run.run_id, exc_info=error)

    async def _end_from_store(self, run: Run, ending: Ending) -> None:
        """End a run as far as its stored events go, unless its last one is among them."""
        live: LiveRun = self._runs.open(run, await self._runs.stored(run))
        try:
            if not live.ended:
                await self._runner.end(live, Last(ending))
        finally:
            self._runs.close(live)
