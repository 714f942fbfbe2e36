"""The history module."""

from __future__ import annotations

import grpc
from plexus.history.v1 import history_service_pb2, session_pb2, summary_service_pb2
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub
from plexus.history.v1.summary_service_pb2_grpc import SummaryServiceStub

from services.context.domain.sources import Kind, Source, Trust
from services.context.ports import Line, Window
from services.context.remote.answers import answers
from services.runtime import clock


class RemoteHistory:
    """See History."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._history = HistoryServiceStub(channel)
        self._summaries = SummaryServiceStub(channel)

    async def window(self, session_id: str, max_tokens: int) -> Window:
        """See History."""
        request = history_service_pb2.GetWindowRequest(session_id=session_id, max_tokens=max_tokens)
        with answers():
            reply = await self._history.GetWindow(request)
        return Window([_line(each) for each in reply.messages], reply.omitted_count)

    async def summary_before(self, session_id: str, message_id: str) -> str:
        """See History."""
        request = summary_service_pb2.GetSummaryBeforeRequest(
            session_id=session_id, message_id=message_id
        )
        with answers():
            reply = await self._summaries.GetSummaryBefore(request)
        summary = reply.summary
        parts = (
            ("", summary.overview),
            ("Decided:", summary.decisions),
            ("Open:", summary.open_questions),
            ("To remember:", summary.details),
        )
        lines = [line for title, each in parts if each for line in (title, *(x.text for x in each))]
        return "\n".join(filter(None, lines))


def _line(message: session_pb2.Message) -> Line:
    by_agent = message.role == session_pb2.AUTHOR_ROLE_AGENT
    source = Source(
        Kind.MESSAGE,
        message.text,
        message_id=message.message_id,
        time=clock.from_timestamp(message.create_time),
        # An agent may repeat what it was given from outside.
        trust=Trust.OUTSIDE if by_agent else Trust.USER,
    )
    return Line(source, by_agent)
