"""How facts wait until memory took them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, select, update

from services.history.domain.summary import Finding
from services.history.tables import consolidations, proposals
from services.runtime.db import Connection


@dataclass(frozen=True, slots=True)
class Proposal:
    """Facts of one step, for the user's space of memory."""

    session_id: str
    through_place: int
    tenant_id: str
    user_id: str
    findings: Sequence[Finding]
    attempts: int

    @property
    def key(self) -> str:
        """What makes proposing it safe to repeat."""
        return f"consolidation/{self.session_id}/{self.through_place}"


async def due(connection: Connection, now: int, limit: int) -> list[Proposal]:
    """Proposals whose time has come."""
    query = select(proposals).where(proposals.c.due_time <= now).order_by(proposals.c.due_time)
    return [
        Proposal(
            session_id=row.session_id,
            through_place=row.through_place,
            tenant_id=row.tenant_id,
            user_id=row.user_id,
            findings=[Finding(text, message_id) for text, message_id in row.findings],
            attempts=row.attempts,
        )
        for row in await connection.execute(query.limit(limit))
    ]


async def take(connection: Connection, proposal: Proposal, again: int) -> bool:
    """Count an attempt, and put the next one off; False where another process was first."""
    taken = await connection.execute(
        update(proposals)
        .where(*_same(proposal), proposals.c.attempts == proposal.attempts)
        .values(attempts=proposal.attempts + 1, due_time=again)
    )
    return bool(taken.rowcount)


async def forget(connection: Connection, proposal: Proposal, proposed: int) -> None:
    """It is done, or given up; what was proposed is counted once."""
    gone = await connection.execute(delete(proposals).where(*_same(proposal)))
    if gone.rowcount and proposed:
        await connection.execute(
            update(consolidations)
            .where(
                consolidations.c.session_id == proposal.session_id,
                consolidations.c.tenant_id == proposal.tenant_id,
            )
            .values(proposed_count=consolidations.c.proposed_count + proposed)
        )


def _same(proposal: Proposal) -> tuple[ColumnElement[bool], ...]:
    return (
        proposals.c.session_id == proposal.session_id,
        proposals.c.through_place == proposal.through_place,
        proposals.c.tenant_id == proposal.tenant_id,
    )
