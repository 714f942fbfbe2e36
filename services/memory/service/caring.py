"""What people decide: about proposals, and that somebody is to be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.memory.domain.planning import Marked
from services.memory.domain.values import MAIN, Commit, Erasure, Outcome, Proposal, ProposalState
from services.memory.service import access
from services.memory.service.storing import planned, prepare
from services.memory.service.writing import Desk, author_of
from services.memory.store import erasures, proposals
from services.runtime import clock, paging
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied
from services.runtime.ids import new_id


class Caring:
    """Proposals and erasures."""

    def __init__(self, desk: Desk, erase: Callable[[], None]) -> None:
        """Prepare.

        Args:
            desk: What it stands on.
            erase: Called where an erasure was asked for.
        """
        self._desk = desk
        self._erase = erase

    async def proposals(
        self, who: Principal, space: str, state: ProposalState, size: int, token: str
    ) -> tuple[list[Proposal], str]:
        """A page of proposals, the oldest first, and the token of the next.

        Raises:
            NotFound: There is no such space for the caller.
        """
        limit = paging.page_size(size)
        after = paging.decode(token, str)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            if space:
                await access.space_of(connection, who, access.place_of(who, space))
            found = await proposals.page(
                connection,
                who.tenant_id,
                who.user_id,
                space,
                state,
                after[0] if after else "",
                limit + 1,
            )
        return paging.cut(found, limit, lambda each: (each.proposal_id,))

    async def decide(
        self, who: Principal, proposal_id: str, *, accept: bool
    ) -> tuple[Proposal, Commit | None]:
        """Store what was proposed, or let go of it.

        Raises:
            NotFound: There is no such proposal for the caller, or what it changes is gone.
            FailedPrecondition: It was decided the other way.
            PermissionDenied: An agent asks.
        """
        wanted = ProposalState.ACCEPTED if accept else ProposalState.REJECTED

        async def work(connection: Connection) -> tuple[Proposal, Commit | None]:
            proposal = await proposals.get(connection, who.tenant_id, proposal_id)
            try:
                place = access.place_of(who, proposal.space)
                space = await access.space_of(connection, who, place)
            except NotFound:
                raise NotFound.of("proposal") from None
            if who.mesh:
                raise PermissionDenied(
                    "A person decides about proposals.", metadata={"permission": "memory.write"}
                )
            if proposal.state == wanted:
                return proposal, None
            if proposal.state != ProposalState.WAITING:
                raise FailedPrecondition("It was decided the other way.", reason="DECIDED")
            decided = replace(proposal, state=wanted, decided_by=who.user_id)
            made = None
            if accept:
                ref, view = await self._desk.head_of(connection, place, space, MAIN)
                (record,) = await prepare([proposal.record])
                marked = Marked(record.record, record.marks, proposal.memory_id)
                made, (stored,) = await planned(ref, view, [marked], "", author_of(who))
                assert stored.outcome != Outcome.PROPOSED
                decided = replace(decided, memory_id=stored.memory_id)
            await proposals.decide(connection, who.tenant_id, decided, clock.now())
            return decided, made

        return await self._desk.write(who.tenant_id, work)

    async def erase(self, who: Principal, person: str) -> Erasure:
        """Ask for the erasure of a person; while one is under way it is that one."""

        async def work(connection: Connection) -> Erasure:
            # One row for all, so that two who ask at once get the same.
            await erasures.lock(connection)
            under_way = await erasures.running(connection, who.tenant_id, person)
            if under_way is not None:
                return under_way
            made = Erasure(new_id("ers"), who.tenant_id, person, who.actor_id, clock.now())
            await erasures.add(connection, made)
            return made

        found = await self._desk.write(who.tenant_id, work)
        self._erase()
        return found

    async def erasure(self, who: Principal, erasure_id: str) -> Erasure:
        """How an erasure goes.

        Raises:
            NotFound: There is none.
        """
        async with self._desk.database.read((who.tenant_id,)) as connection:
            return await erasures.get(connection, who.tenant_id, erasure_id)

    async def erasures(self, who: Principal, size: int, token: str) -> tuple[list[Erasure], str]:
        """A page of the tenant's erasures, the newest first, and the token of the next."""
        limit = paging.page_size(size)
        before = paging.decode(token, str)
        async with self._desk.database.read((who.tenant_id,)) as connection:
            found = await erasures.page(
                connection, who.tenant_id, before[0] if before else "", limit + 1
            )
        return paging.cut(found, limit, lambda each: (each.erasure_id,))
