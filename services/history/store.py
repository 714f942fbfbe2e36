"""How sessions and messages are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, insert, or_, select, update

from services.history.domain import Author, Message, NewMessage, Session, title_of
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
    return [await _append_one(connection, each) for each in batch]


async def _append_one(connection: Connection, new: NewMessage) -> Message | PlexusError:
    row = (
        await connection.execute(select(messages).where(messages.c.message_id == new.message_id))
    ).one_or_none()
    if row is not None:
        return _message(row) if row.tenant_id == new.tenant_id else NotFound.of("message")
    row = (
        await connection.execute(select(sessions).where(sessions.c.session_id == new.session_id))
    ).one_or_none()
    if row is not None and row.tenant_id != new.tenant_id:
        return NotFound.of("session")
    place = (row.message_count if row is not None else 0) + 1
    if row is None:
        values = {
            "session_id": new.session_id,
            "tenant_id": new.tenant_id,
            "user_id": new.user_id,
            "title": title_of(new.text),
            "message_count": 1,
            "create_time": new.time,
            "update_time": new.time,
        }
        await connection.execute(insert(sessions).values(values))
    else:
        await connection.execute(
            update(sessions)
            .where(sessions.c.session_id == new.session_id)
            .values(message_count=place, update_time=new.time)
        )
    message = Message(
        message_id=new.message_id,
        session_id=new.session_id,
        author=new.author,
        text=new.text,
        run_id=new.run_id,
        partial=new.partial,
        place=place,
        create_time=new.time,
    )
    await connection.execute(
        insert(messages).values(
            message_id=message.message_id,
            session_id=message.session_id,
            tenant_id=new.tenant_id,
            author=int(message.author),
            text=message.text,
            size=new.size,
            run_id=message.run_id,
            partial=message.partial,
            place=place,
            create_time=message.create_time,
        )
    )
    return message


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
