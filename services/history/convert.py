"""History's messages on the wire."""

from __future__ import annotations

from plexus.history.v1 import session_pb2 as pb
from plexus.history.v1 import summary_service_pb2 as summary_pb

from services.history.domain.sessions import Author, Message, NewMessage, Session
from services.history.domain.summary import Consolidation, Line, Summary
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


def plain(field: str, text: str) -> str:
    """A text that every database takes.

    Raises:
        InvalidRequest: It has the character NUL, which PostgreSQL refuses.
    """
    if "\0" in text:
        raise InvalidRequest.field(field, "must not have the character U+0000")
    return text


def to_summary(summary: Summary) -> summary_pb.Summary:
    """The contract's form of a summary."""
    return summary_pb.Summary(
        overview=map(_to_line, summary.overview),
        decisions=map(_to_line, summary.decisions),
        open_questions=map(_to_line, summary.open_questions),
        details=map(_to_line, summary.details),
        model=summary.model,
    )


def _to_line(line: Line) -> summary_pb.SummaryLine:
    return summary_pb.SummaryLine(text=line.text, message_ids=line.message_ids)


def to_consolidation(found: Consolidation) -> summary_pb.Consolidation:
    """The contract's form of a consolidation."""
    return summary_pb.Consolidation(
        session_id=found.session_id,
        state=summary_pb.ConsolidationState.ValueType(int(found.state)),
        summary=to_summary(found.summary),
        through_message_id=found.through_message_id,
        message_count=found.through_place,
        tokens_before=found.tokens_before,
        tokens_after=found.tokens_after,
        dropped=(
            summary_pb.Dropped(message_id=each.message_id, sentences=each.sentences)
            for each in found.dropped
        ),
        proposed_count=found.proposed_count,
        update_time=clock.to_timestamp(found.update_time) if found.update_time else None,
        failure=found.failure,
    )
