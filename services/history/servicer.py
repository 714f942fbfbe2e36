"""HistoryService over gRPC."""

from __future__ import annotations

from plexus.history.v1 import history_service_pb2 as pb
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceServicer

from services.history.convert import from_message, to_message, to_session
from services.history.service import HistoryService
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
