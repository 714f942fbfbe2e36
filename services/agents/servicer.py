"""AgentsService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator

from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceServicer
from plexus.agents.v1.run_pb2 import RunEvent

from services.agents.convert import from_request, to_agent, to_event, to_run
from services.agents.service import AgentsService
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class AgentsServicer(AgentsServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, service: AgentsService) -> None:
        self._service = service

    async def GetAgent(
        self, request: pb.GetAgentRequest, context: Servicing
    ) -> pb.GetAgentResponse:
        """See the contract."""
        agent = await self._service.agent(principal().tenant_id, request.agent_id)
        return pb.GetAgentResponse(agent=to_agent(agent))

    async def ListAgents(
        self, request: pb.ListAgentsRequest, context: Servicing
    ) -> pb.ListAgentsResponse:
        """See the contract."""
        agents, token = await self._service.agents(
            principal().tenant_id, request.page_size, request.page_token
        )
        return pb.ListAgentsResponse(agents=map(to_agent, agents), next_page_token=token)

    async def Process(
        self, request: pb.ProcessRequest, context: Servicing
    ) -> AsyncIterator[RunEvent]:
        """See the contract."""
        run = await self._service.start(principal(), from_request(request))
        async for event in self._service.watch(run.tenant_id, run.run_id, 0):
            yield to_event(run.run_id, event)

    async def GetRun(self, request: pb.GetRunRequest, context: Servicing) -> pb.GetRunResponse:
        """See the contract."""
        run = await self._service.run(principal().tenant_id, request.run_id)
        return pb.GetRunResponse(run=to_run(run))

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Servicing
    ) -> pb.CancelRunResponse:
        """See the contract."""
        run = await self._service.cancel(principal(), request.run_id)
        return pb.CancelRunResponse(run=to_run(run))

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Servicing
    ) -> AsyncIterator[RunEvent]:
        """See the contract."""
        tenant_id = principal().tenant_id
        async for event in self._service.watch(tenant_id, request.run_id, request.after_sequence):
            yield to_event(request.run_id, event)
