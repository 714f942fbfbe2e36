"""History's messages on the wire."""

from __future__ import annotations

from plexus.history.v1 import session_pb2 as pb

from services.history.domain import Author, Message, NewMessage, Session
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.errors import InvalidRequest


def to_session(session: Session) -> pb.Session:
    """The contract's form of a session."""
    return pb.Session(
        session_id=session.session_id,
        title=session.title,
        user_id=session.user_id,
        create_time=clock.to_timestamp(session.create_time),
        update_time=clock.to_timestamp(session.update_time),
        message_count=session.message_count,
    )


def to_message(message: Message) -> pb.Message:
    """The contract's form of a message."""
    return pb.Message(
        message_id=message.message_id,
        session_id=message.session_id,
        role=pb.AuthorRole.ValueType(int(message.author)),
        text=message.text,
        run_id=message.run_id,
        partial=message.partial,
        create_time=clock.to_timestamp(message.create_time),
    )


def from_message(message: pb.Message, who: Principal) -> NewMessage:
    """A message to append.

    Raises:
        InvalidRequest: It names no session.
    """
    if not message.session_id:
        raise InvalidRequest.field("message.session_id", "is required")
    return NewMessage(
        tenant_id=who.tenant_id,
        user_id=who.user_id,
        message_id=message.message_id,
        session_id=message.session_id,
        author=Author(message.role),
        text=message.text,
        run_id=message.run_id,
        partial=message.partial,
        time=clock.now(),
    )
