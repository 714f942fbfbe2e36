"""What waits for a person, and what one decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, select, update

from services.memory.domain.values import Content, Proposal, ProposalState, Record
from services.memory.store.spaces import readable
from services.memory.tables import proposals, spaces
from services.runtime.db import Connection
from services.runtime.errors import NotFound

_PURGED_AT_ONCE = 500


async def add(connection: Connection, tenant_id: str, made: Sequence[Proposal]) -> None:
    """Keep proposals."""
    rows = [
        {
            "tenant_id": tenant_id,
            "proposal_id": each.proposal_id,
            "space": each.space,
            "memory_id": each.memory_id,
            # A memory that is there; else it is the id that a new one gets.
            "changes": bool(each.record.memory_id),
            "person": each.record.content.person,
            "body": each.record.content.to_json(),
            "state": each.state,
            "create_time": each.create_time,
            "proposed_by": each.proposed_by,
            "decided_by": "",
            "decide_time": 0,
        }
        for each in made
    ]
    await connection.execute(insert(proposals), rows)


async def waiting(connection: Connection, tenant_id: str) -> int:
    """How many wait."""
    query = (
        select(func.count())
        .select_from(proposals)
        .where(proposals.c.tenant_id == tenant_id, proposals.c.state == ProposalState.WAITING)
    )
    return (await connection.execute(query)).scalar_one()


async def page(
    connection: Connection,
    tenant_id: str,
    user_id: str,
    space: str,
    state: ProposalState,
    after: str,
    limit: int,
) -> list[Proposal]:
    """Proposals in spaces that a user may read, the oldest first, behind one."""
    same = and_(spaces.c.tenant_id == proposals.c.tenant_id, spaces.c.space == proposals.c.space)
    query = (
        select(proposals)
        .join(spaces, same)
        .where(
            proposals.c.tenant_id == tenant_id,
            proposals.c.state == state,
            proposals.c.proposal_id > after,
            readable(proposals, user_id),
        )
    )
    if space:
        query = query.where(proposals.c.space == space)
    rows = await connection.execute(query.order_by(proposals.c.proposal_id).limit(limit))
    return [_proposal(row) for row in rows]


async def get(connection: Connection, tenant_id: str, proposal_id: str) -> Proposal:
    """A proposal, which nobody else decides about until the transaction ends.

    Raises:
        NotFound: There is none.
    """
    query = select(proposals).where(
        proposals.c.tenant_id == tenant_id, proposals.c.proposal_id == proposal_id
    )
    row = (await connection.execute(query.with_for_update())).one_or_none()
    if row is None:
        raise NotFound.of("proposal")
    return _proposal(row)


async def decide(connection: Connection, tenant_id: str, proposal: Proposal, now: int) -> None:
    """Keep what was decided."""
    same = (proposals.c.tenant_id == tenant_id, proposals.c.proposal_id == proposal.proposal_id)
    values = {
        "state": proposal.state,
        "memory_id": proposal.memory_id,
        "decided_by": proposal.decided_by,
        "decide_time": now,
    }
    await connection.execute(update(proposals).where(*same).values(**values))


async def purge(connection: Connection, before: int) -> bool:
    """Forget some that were let go of before a moment; True where there may be more."""
    c = proposals.c
    old = (c.state == ProposalState.REJECTED, c.decide_time < before)
    some = select(c.proposal_id).where(*old).limit(_PURGED_AT_ONCE)
    gone = await connection.execute(delete(proposals).where(c.proposal_id.in_(some), *old))
    return gone.rowcount == _PURGED_AT_ONCE


def _proposal(row: Row[Any]) -> Proposal:
    return Proposal(
        proposal_id=row.proposal_id,
        space=row.space,
        memory_id=row.memory_id,
        record=Record(Content.from_json(row.body), row.memory_id if row.changes else ""),
        state=ProposalState(row.state),
        create_time=row.create_time,
        proposed_by=row.proposed_by,
        decided_by=row.decided_by,
    )
