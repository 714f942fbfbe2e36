"""How sessions and messages are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, insert, or_, select, update

from services.history.domain.sessions import Author, Message, NewMessage, Session, after, message_of
from services.history.tables import messages, sessions
from services.runtime.db import Connection
from services.runtime.errors import NotFound, PlexusError


async def append(
    connection: Connection, batch: Sequence[NewMessage]
) -> Sequence[Message | PlexusError]:
    """Add messages, each to its session, which is made if it is not there.

    A message whose id is there is returned as it is. An id of another tenant's session or message
    gives NotFound in the message's place, and the others are kept.
    """
    ids = [new.session_id for new in batch]
    mine = select(sessions).where(sessions.c.session_id.in_(ids))
    # Held until the commit, in one order for all: another replica counts on from where we end.
    rows = await connection.execute(mine.order_by(sessions.c.session_id).with_for_update())
    stored = {row.session_id: _session(row) for row in rows}
    ids = [new.message_id for new in batch]
    rows = await connection.execute(select(messages).where(messages.c.message_id.in_(ids)))
    known = {row.message_id: (row.tenant_id, _message(row)) for row in rows}
    touched = dict(stored)
    results: list[Message | PlexusError] = []
    added: list[dict[str, Any]] = []
    for new in batch:
        if new.message_id in known:
            tenant_id, message = known[new.message_id]
            results.append(message if tenant_id == new.tenant_id else NotFound.of("message"))
            continue
        session = after(touched.get(new.session_id), new)
        if session.tenant_id != new.tenant_id:
            results.append(NotFound.of("session"))
            continue
        touched[new.session_id] = session
        message = message_of(new, session.message_count)
        known[new.message_id] = (new.tenant_id, message)
        results.append(message)
        added.append({**asdict(message), "tenant_id": new.tenant_id, "size": new.size})
    await _write(connection, stored, touched, added)
    return results


async def _write(
    connection: Connection,
    stored: Mapping[str, Session],
    touched: Mapping[str, Session],
    added: Sequence[dict[str, Any]],
) -> None:
    changed = [asdict(each) for key, each in touched.items() if stored.get(key) != each]
    begun = [values for values in changed if values["session_id"] not in stored]
    grown = [
        {
            "of": values["session_id"],
            "message_count": values["message_count"],
            "update_time": values["update_time"],
        }
        for values in changed
        if values["session_id"] in stored
    ]
    begun.sort(key=lambda values: str(values["session_id"]))
    if begun:
        await connection.execute(insert(sessions), begun)
    if grown:
        grow = update(sessions).where(sessions.c.session_id == bindparam("of"))
        await connection.execute(grow, grown)
    if added:
        await connection.execute(insert(messages), added)


async def get_session(connection: Connection, tenant_id: str, session_id: str) -> Session:
    """One session.

    Raises:
        NotFound: There is none, or it is another tenant's.
    """
    row = (
        await connection.execute(
            select(sessions).where(
                sessions.c.session_id == session_id, sessions.c.tenant_id == tenant_id
            )
        )
    ).one_or_none()
    if row is None:
        raise NotFound.of("session")
    return _session(row)


async def list_sessions(
    connection: Connection, tenant_id: str, before: tuple[int, str] | None, limit: int
) -> list[Session]:
    """Sessions by the time they began, newest first, after the one with these sort keys."""
    query = select(sessions).where(sessions.c.tenant_id == tenant_id)
    if before is not None:
        time, session_id = before
        query = query.where(
            or_(
                sessions.c.create_time < time,
                and_(sessions.c.create_time == time, sessions.c.session_id < session_id),
            )
        )
    query = query.order_by(sessions.c.create_time.desc(), sessions.c.session_id.desc())
    return [_session(row) for row in await connection.execute(query.limit(limit))]


async def list_sizes(
    connection: Connection, tenant_id: str, session_id: str, *, after: int = 0, limit: int
) -> list[tuple[int, int]]:
    """The places of a session's messages after one, and the bytes of their texts, oldest first."""
    query = _sizes(tenant_id, session_id).where(messages.c.place > after)
    rows = await connection.execute(query.order_by(messages.c.place).limit(limit))
    return [(row.place, row.size) for row in rows]


async def newest_sizes(
    connection: Connection, tenant_id: str, session_id: str, limit: int
) -> list[tuple[int, int]]:
    """The places of a session's messages and the bytes of their texts, newest first."""
    query = _sizes(tenant_id, session_id).order_by(messages.c.place.desc()).limit(limit)
    return [(row.place, row.size) for row in await connection.execute(query)]


def _sizes(tenant_id: str, session_id: str) -> Select[tuple[int, int]]:
    return select(messages.c.place, messages.c.size).where(
        messages.c.tenant_id == tenant_id, messages.c.session_id == session_id
    )


async def get_messages(
    connection: Connection, tenant_id: str, session_id: str, first: int, last: int
) -> list[Message]:
    """A session's messages from one place to another, both included, oldest first."""
    query = (
        select(messages)
        .where(
            messages.c.tenant_id == tenant_id,
            messages.c.session_id == session_id,
            messages.c.place.between(first, last),
        )
        .order_by(messages.c.place)
    )
    return [_message(row) for row in await connection.execute(query)]


def _session(row: Row[Any]) -> Session:
    return Session(
        session_id=row.session_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        title=row.title,
        message_count=row.message_count,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _message(row: Row[Any]) -> Message:
    return Message(
        message_id=row.message_id,
        session_id=row.session_id,
        author=Author(row.author),
        text=row.text,
        run_id=row.run_id,
        partial=row.partial,
        place=row.place,
        create_time=row.create_time,
    )
