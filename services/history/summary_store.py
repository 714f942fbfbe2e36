"""How summaries of sessions are kept, and who works on which."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, insert, or_, select, text, update

from services.history.domain.summary import Consolidation, Dropped, Finding, State, Summary
from services.history.tables import consolidations, messages, owners, proposals, sessions, summaries
from services.runtime import clock
from services.runtime.db import Connection, upsert
from services.runtime.errors import Aborted, NotFound

VERSIONS = 20
# Written out, for an index on some rows serves only a query that says it is about those.
_RUNNING = text("history_consolidations.state = 1")


class Taken(Aborted):
    """Another process works on it, or it got on meanwhile."""


async def find(connection: Connection, tenant_id: str, session_id: str) -> Consolidation | None:
    """The consolidation of a session, if it has one."""
    query = select(consolidations).where(
        consolidations.c.session_id == session_id, consolidations.c.tenant_id == tenant_id
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _consolidation(row)


async def request(connection: Connection, wanted: Consolidation) -> None:
    """Begin one that is not there; begin again one that is not under way. Anybody works on it."""
    values = {
        "state": int(wanted.state),
        "model": wanted.model,
        "keep_messages": wanted.keep_messages,
        "failure": "",
        "attempts": 0,
        "owner": "",
        "update_time": wanted.update_time,
    }
    row = {
        "session_id": wanted.session_id,
        "tenant_id": wanted.tenant_id,
        "user_id": wanted.user_id,
        "summary": wanted.summary.packed(),
        "dropped": [],
        "through_place": 0,
        "through_message_id": "",
        "tokens_before": 0,
        "tokens_after": 0,
        "proposed_count": 0,
    }
    # Who asks in the same moment finds it under way.
    adding = upsert(connection.dialect.name, consolidations).values(**row, **values)
    await connection.execute(
        adding.on_conflict_do_update(
            index_elements=["session_id"],
            set_=values,
            where=and_(
                consolidations.c.tenant_id == wanted.tenant_id,
                consolidations.c.state != int(State.RUNNING),
                consolidations.c.through_place == wanted.through_place,
            ),
        )
    )


async def claimable(
    connection: Connection, owner: str, dead: Collection[str], limit: int
) -> Sequence[tuple[str, str, str]]:
    """Sessions that wait and that no living process works on: session, tenant, and whose it was."""
    free = consolidations.c.owner.not_in(select(owners.c.owner))
    query = (
        select(consolidations.c.session_id, consolidations.c.tenant_id, consolidations.c.owner)
        .where(_RUNNING, or_(free, consolidations.c.owner.in_([owner, *dead])))
        .order_by(consolidations.c.update_time)
    )
    rows = await connection.execute(query.limit(limit))
    return [(row.session_id, row.tenant_id, row.owner) for row in rows]


async def claim(connection: Connection, session_id: str, before: str, owner: str) -> bool:
    """Take over one from its owner before; False where somebody else was first."""
    taken = await connection.execute(
        update(consolidations)
        .where(
            consolidations.c.session_id == session_id, consolidations.c.owner == before, _RUNNING
        )
        .values(owner=owner, attempts=consolidations.c.attempts + 1)
    )
    return bool(taken.rowcount)


async def end(connection: Connection, at: Consolidation, owner: str, failure: str = "") -> None:
    """It is up to date, or failed.

    Raises:
        Taken: It is not this process's any more, or it got on.
    """
    state = State.FAILED if failure else State.DONE
    await _change(connection, at, owner, state=int(state), failure=failure[:500])


async def advance(
    connection: Connection,
    before: Consolidation,
    now: Consolidation,
    owner: str,
    findings: Sequence[Finding],
) -> None:
    """Keep what a step took in, as a version of the summary, with the facts it found.

    Raises:
        Taken: It is not this process's any more, or it got on.
    """
    summary = now.summary.packed()
    await _change(
        connection,
        before,
        owner,
        summary=summary,
        dropped=[[each.message_id, *each.sentences] for each in now.dropped],
        through_place=now.through_place,
        through_message_id=now.through_message_id,
        tokens_before=now.tokens_before,
        tokens_after=now.tokens_after,
        attempts=0,
    )
    key = {
        "session_id": now.session_id,
        "through_place": now.through_place,
        "tenant_id": now.tenant_id,
    }
    version = {
        "through_message_id": now.through_message_id,
        "summary": summary,
        "create_time": now.update_time,
    }
    await connection.execute(insert(summaries), key | version)
    of_it = summaries.c.session_id == now.session_id
    old = select(summaries.c.through_place).where(of_it)
    old = old.order_by(summaries.c.through_place.desc()).offset(VERSIONS).limit(VERSIONS)
    places = (await connection.execute(old)).scalars().all()
    if places:
        await connection.execute(
            delete(summaries).where(of_it, summaries.c.through_place.in_(places))
        )
    if findings:
        waiting = {
            "user_id": now.user_id,
            "findings": [[each.text, each.message_id] for each in findings],
            "attempts": 0,
            "due_time": now.update_time,
        }
        await connection.execute(insert(proposals), key | waiting)


async def _change(
    connection: Connection, before: Consolidation, owner: str, **values: object
) -> None:
    changed = await connection.execute(
        update(consolidations)
        .where(
            consolidations.c.session_id == before.session_id,
            consolidations.c.tenant_id == before.tenant_id,
            consolidations.c.owner == owner,
            consolidations.c.through_place == before.through_place,
            _RUNNING,
        )
        .values(update_time=clock.now(), **values)
    )
    if not changed.rowcount:
        raise Taken("Another process works on this consolidation.")


async def place_of(connection: Connection, tenant_id: str, session_id: str, message_id: str) -> int:
    """The place of a message in its session.

    Raises:
        NotFound: It is not there, or in another session.
    """
    query = select(messages.c.place).where(
        messages.c.message_id == message_id,
        messages.c.session_id == session_id,
        messages.c.tenant_id == tenant_id,
    )
    found = (await connection.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound.of("message")
    return int(found)


async def version_before(
    connection: Connection, tenant_id: str, session_id: str, place: int | None
) -> tuple[Summary, str] | None:
    """The newest version that took in nothing from a place on, and its last message."""
    query = select(summaries).where(
        summaries.c.session_id == session_id, summaries.c.tenant_id == tenant_id
    )
    if place is not None:
        query = query.where(summaries.c.through_place < place)
    query = query.order_by(summaries.c.through_place.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (Summary.unpacked(row.summary), row.through_message_id)


async def behind(
    connection: Connection, after: str, keep: int, limit: int
) -> tuple[list[tuple[str, str]], str]:
    """Of the sessions next in the order of their ids, those that have messages to take in.

    Returns:
        Tenant and session of each, and the last session looked at; empty at the end.
    """
    page = (
        select(sessions.c.session_id)
        .where(sessions.c.session_id > after)
        .order_by(sessions.c.session_id)
        .limit(limit)
    )
    looked = (await connection.execute(page)).scalars().all()
    if not looked:
        return [], ""
    joined = sessions.outerjoin(
        consolidations, consolidations.c.session_id == sessions.c.session_id
    )
    found = await connection.execute(
        select(
            sessions.c.tenant_id,
            sessions.c.session_id,
            sessions.c.message_count,
            consolidations.c.through_place,
        )
        .select_from(joined)
        .where(sessions.c.session_id.in_(looked))
    )
    rows = [
        (row.tenant_id, row.session_id)
        for row in found
        if row.message_count - (row.through_place or 0) > keep
    ]
    return rows, looked[-1] if len(looked) == limit else ""


def _consolidation(row: Row[Any]) -> Consolidation:
    return Consolidation(
        session_id=row.session_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        state=State(row.state),
        model=row.model,
        keep_messages=row.keep_messages,
        summary=Summary.unpacked(row.summary),
        through_place=row.through_place,
        through_message_id=row.through_message_id,
        tokens_before=row.tokens_before,
        tokens_after=row.tokens_after,
        dropped=tuple(Dropped(message_id, tuple(said)) for message_id, *said in row.dropped),
        proposed_count=row.proposed_count,
        update_time=row.update_time,
        failure=row.failure,
        attempts=row.attempts,
    )
