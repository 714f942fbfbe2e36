"""HistoryService and SummaryService over gRPC."""

from __future__ import annotations

from plexus.history.v1 import history_service_pb2 as pb
from plexus.history.v1 import summary_service_pb2 as summary_pb
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceServicer
from plexus.history.v1.summary_service_pb2_grpc import SummaryServiceServicer

from services.history.convert import (
    from_message,
    plain,
    to_consolidation,
    to_message,
    to_session,
    to_summary,
)
from services.history.domain.summary import KEEP_MESSAGES
from services.history.service import HistoryService
from services.history.summaries import SummaryService
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class HistoryServicer(HistoryServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, service: HistoryService) -> None:
        self._service = service

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Servicing
    ) -> pb.GetSessionResponse:
        """See the contract."""
        session = await self._service.session(principal().tenant_id, request.session_id)
        return pb.GetSessionResponse(session=to_session(session))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Servicing
    ) -> pb.ListSessionsResponse:
        """See the contract."""
        sessions, token = await self._service.sessions(
            principal().tenant_id, request.page_size, request.page_token
        )
        return pb.ListSessionsResponse(sessions=map(to_session, sessions), next_page_token=token)

    async def ListMessages(
        self, request: pb.ListMessagesRequest, context: Servicing
    ) -> pb.ListMessagesResponse:
        """See the contract."""
        messages, token = await self._service.messages(
            principal().tenant_id, request.session_id, request.page_size, request.page_token
        )
        return pb.ListMessagesResponse(messages=map(to_message, messages), next_page_token=token)

    async def AppendMessage(
        self, request: pb.AppendMessageRequest, context: Servicing
    ) -> pb.AppendMessageResponse:
        """See the contract."""
        message = await self._service.append(from_message(request.message, principal()))
        return pb.AppendMessageResponse(message=to_message(message))

    async def GetWindow(
        self, request: pb.GetWindowRequest, context: Servicing
    ) -> pb.GetWindowResponse:
        """See the contract."""
        messages, omitted = await self._service.window(
            principal().tenant_id, request.session_id, request.max_tokens
        )
        return pb.GetWindowResponse(messages=map(to_message, messages), omitted_count=omitted)


class SummaryServicer(SummaryServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, service: SummaryService) -> None:
        self._service = service

    async def ConsolidateSession(
        self, request: summary_pb.ConsolidateSessionRequest, context: Servicing
    ) -> summary_pb.ConsolidateSessionResponse:
        """See the contract."""
        keep = request.keep_messages if request.HasField("keep_messages") else KEEP_MESSAGES
        found = await self._service.consolidate(
            principal().tenant_id,
            plain("session_id", request.session_id),
            plain("model", request.model),
            keep,
        )
        return summary_pb.ConsolidateSessionResponse(consolidation=to_consolidation(found))

    async def GetConsolidation(
        self, request: summary_pb.GetConsolidationRequest, context: Servicing
    ) -> summary_pb.GetConsolidationResponse:
        """See the contract."""
        found = await self._service.consolidation(
            principal().tenant_id, plain("session_id", request.session_id)
        )
        return summary_pb.GetConsolidationResponse(consolidation=to_consolidation(found))

    async def SummarizeSession(
        self, request: summary_pb.SummarizeSessionRequest, context: Servicing
    ) -> summary_pb.SummarizeSessionResponse:
        """See the contract."""
        summary, omitted = await self._service.summarize(
            principal().tenant_id,
            plain("session_id", request.session_id),
            request.newest,
            plain("model", request.model),
        )
        return summary_pb.SummarizeSessionResponse(
            summary=to_summary(summary), omitted_count=omitted
        )

    async def GetSummaryBefore(
        self, request: summary_pb.GetSummaryBeforeRequest, context: Servicing
    ) -> summary_pb.GetSummaryBeforeResponse:
        """See the contract."""
        found = await self._service.before(
            principal().tenant_id,
            plain("session_id", request.session_id),
            plain("message_id", request.message_id),
        )
        if found is None:
            return summary_pb.GetSummaryBeforeResponse()
        summary, through = found
        return summary_pb.GetSummaryBeforeResponse(
            summary=to_summary(summary), through_message_id=through
        )
