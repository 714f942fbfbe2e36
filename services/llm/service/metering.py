"""What calls take: entered before a model is asked, and again when its answer has ended.

A call's end is committed before its caller hears of it. Where nobody waits for that any more, or
the database is away, the entry is owed and tried again; what a process owed when it ended is
entered by whoever finds it, from the process's journal.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from services.llm.domain.generation import Usage, tokens_in, utf8_size
from services.llm.domain.ledger import EndedCall, Kept, NewCall, Opened, State
from services.llm.domain.routing import Price
from services.llm.journal import Journal, left_behind
from services.llm.store import calls as store
from services.llm.tables import owners
from services.runtime import clock, log
from services.runtime.db import EVERYONE, Database
from services.runtime.errors import PlexusError, Unavailable
from services.runtime.groups import GroupWriter
from services.runtime.leases import RENEW_SECONDS, Lease
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
_MAX_OWED = 10_000
_NOTHING = Usage(0, 0, estimated=False)


@dataclass(slots=True)
class Call:
    """A call under way.

    Attributes:
        model: The one that answers now.
        price: Its price.
        granted: How long the answer may be where budgets bound it.
        size: The bytes of the answer so far.
    """

    new: NewCall
    slot: int
    model: str
    price: Price
    granted: int | None
    size: int = 0
    _counted: int = 0
    _before: Usage = _NOTHING

    def usage(self, told: Usage | None = None) -> Usage:
        """What it took so far, by all models that were asked.

        Args:
            told: What the one that answers now says it took; None where it does not.
        """
        part = told or Usage(
            self.new.input_tokens, tokens_in(self.size - self._counted), estimated=True
        )
        cost = self.price.of(part.input_tokens, part.output_tokens)
        return self._before.plus(replace(part, cost=cost))

    def ask_again(self, model: str, price: Price, told: Usage | None = None) -> None:
        """A model is asked anew: what the one before it took is kept."""
        self._before = self.usage(told)
        self._counted = self.size
        self.model, self.price = model, price


class Meter:
    """The ledger as generations see it."""

    def __init__(self, database: Database, folder: Path, instance: str, tasks: Tasks) -> None:
        """Prepare one.

        Args:
            database: Where the ledger is.
            folder: Where the journals of this machine's processes are.
            instance: As for a Lease.
            tasks: Where entries are made that nobody waits for.
        """
        self._database = database
        self._folder = folder
        self._tasks = tasks
        self._lease = Lease(database.apart(), owners, instance)
        self._begins: GroupWriter[NewCall, Opened | Kept] = GroupWriter(
            database, store.begin, lambda new: new.tenant_id
        )
        self._ends: GroupWriter[EndedCall, None] = GroupWriter(
            database, store.end, lambda ended: ended.tenant_id
        )
        self._journal = Journal(folder, self._lease.owner)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        # With their slots in the journal, where they have any.
        self._owed: dict[str, tuple[EndedCall, int | None]] = {}

    @property
    def owner(self) -> str:
        """This process's name in the ledger."""
        return self._lease.owner

    async def start(self) -> None:
        """Take the lease, and keep everything going.

        Raises:
            Unavailable: The database cannot serve now.
        """
        await self._lease.begin()
        self._tasks.keep_running("llm.begins", self._begins.run)
        self._tasks.keep_running("llm.ends", self._ends.run)
        self._tasks.keep_running("llm.lease", self._keep_lease)

    async def close(self) -> None:
        """Give the lease up."""
        self._journal.close()
        try:
            await self._lease.end()
        except PlexusError as error:  # without it, it runs out by itself
            _logger.warning("lease_not_ended", error=repr(error))

    async def drain(self, seconds: float) -> None:
        """Wait until every call has ended, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
                await self._settle_owed()
        except TimeoutError:
            _logger.warning("calls_not_ended", calls=self._under_way)

    async def begin(self, new: NewCall) -> Call | Kept:
        """Enter a call, or find the answer that its key has.

        Raises:
            ResourceExhausted: BUDGET_SPENT, or too much is waiting to be stored.
            AlreadyExists: Its key stands for another request.
            Aborted: IN_PROGRESS: the first call under its key has not ended.
            Unavailable: The database cannot serve now.
        """
        entering = asyncio.ensure_future(self._begins.submit(new))
        try:
            found = await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(partial(self._unwanted, new))
            raise
        except Unavailable:
            # It may be entered all the same, and then nobody would ever end it.
            self._owe(_unused(new))
            raise
        if isinstance(found, Kept):
            return found
        self._under_way += 1
        self._idle.clear()
        slot = self._journal.begin(new.call_id)
        return Call(new, slot, new.model, new.price, found.most_answer)

    def _unwanted(self, new: NewCall, entering: asyncio.Future[Opened | Kept]) -> None:
        """A caller went while its call was being entered."""
        error = None if entering.cancelled() else entering.exception()
        if error is not None and not isinstance(error, Unavailable):
            return
        if error is not None or entering.cancelled() or isinstance(entering.result(), Opened):
            self._owe(_unused(new))

    def passed_on(self, call: Call, text: str) -> None:
        """More of the answer is about to go to the caller."""
        call.size += utf8_size(text)
        self._journal.note(call.slot, call.size)

    async def end(self, call: Call, state: State, usage: Usage, sealed: bytes = b"") -> bool:
        """Enter what a call took; whether it is committed.

        What is not is tried again, so that the ledger is right in the end.
        """
        ended = _ended(call.new, state, call.model, usage, sealed)
        self._owe(ended, call.slot)
        try:
            return await self._settle(ended)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def end_later(self, call: Call, state: State, usage: Usage) -> None:
        """The same where nobody waits: the caller has gone."""
        self._tasks.start("llm.end", self._end_quietly(call, state, usage))

    async def _end_quietly(self, call: Call, state: State, usage: Usage) -> None:
        await self.end(call, state, usage)

    def _owe(self, ended: EndedCall, slot: int | None = None) -> None:
        if len(self._owed) < _MAX_OWED:
            self._owed[ended.call_id] = (ended, slot)
        else:
            # Where it has a slot in the journal, whoever takes the lease over enters it.
            _logger.warning("call_not_owed", call=ended.call_id, bound=_MAX_OWED)

    async def _settle(self, ended: EndedCall) -> bool:
        try:
            await self._ends.submit(ended)
        except PlexusError as error:
            _logger.warning("call_not_entered", call=ended.call_id, error=repr(error))
            return False
        _, slot = self._owed.pop(ended.call_id, (ended, None))
        if slot is not None:
            self._journal.end(slot)
        return True

    async def _settle_owed(self) -> None:
        for ended, _ in tuple(self._owed.values()):
            if not await self._settle(ended):
                return

    async def _keep_lease(self) -> None:
        """Renew the lease, and enter what ended processes left, until cancelled."""
        while True:
            try:
                await self._lease.renew()
                await self._settle_owed()
                await self.recover()
            except (PlexusError, TimeoutError) as error:
                _logger.warning("lease_not_renewed", error=repr(error))
            await asyncio.sleep(RENEW_SECONDS)

    async def recover(self) -> int:
        """Enter calls whose processes ended; how many.

        Raises:
            Unavailable: The database cannot serve now.
        """
        async with self._database.read(EVERYONE) as connection:
            dead = await self._lease.silent(connection)
        if dead:
            async with self._database.transaction(EVERYONE) as connection:
                await self._lease.bury(connection, dead)
        async with self._database.read(EVERYONE) as connection:
            left = await store.orphans(connection, self.owner)
        for owner in sorted({owner for owner, _ in left}):
            await self._enter(owner, [new for each, new in left if each == owner])
        if left:
            _logger.warning("calls_recovered", calls=len(left))
        return len(left)

    async def _enter(self, owner: str, lost: list[NewCall]) -> None:
        with left_behind(self._folder, owner) as sizes:
            if sizes is None:
                return
            ended = [_lost(new, sizes.get(new.call_id, 0)) for new in lost]
            async with self._database.transaction({new.tenant_id for new in lost}) as connection:
                await store.end(connection, ended)


def _unused(new: NewCall) -> EndedCall:
    return _ended(new, State.FAILED, new.model, _NOTHING)


def _lost(new: NewCall, size: int) -> EndedCall:
    tokens = tokens_in(size)
    cost = new.price.of(new.input_tokens, tokens)
    usage = Usage(new.input_tokens, tokens, estimated=True, cost=cost)
    # Of a call that was read from the ledger it is not known whether it had a key.
    return replace(_ended(new, State.LOST, new.model, usage), keyed=True)


def _ended(
    new: NewCall, state: State, model: str, usage: Usage, sealed_answer: bytes = b""
) -> EndedCall:
    return EndedCall(
        call_id=new.call_id,
        tenant_id=new.tenant_id,
        state=state,
        model=model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=usage.cost,
        estimated=usage.estimated,
        end_time=clock.now(),
        keyed=new.key is not None,
        sealed_answer=sealed_answer,
    )
