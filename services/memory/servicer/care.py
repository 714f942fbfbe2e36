"""CareService over gRPC."""

from __future__ import annotations

from plexus.memory.v1 import care_service_pb2 as pb
from plexus.memory.v1.care_service_pb2_grpc import CareServiceServicer

from services.memory import convert
from services.memory.domain.values import ProposalState
from services.memory.service.caring import Caring
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class CareServicer(CareServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, caring: Caring) -> None:
        self._caring = caring

    async def ListProposals(
        self, request: pb.ListProposalsRequest, context: Servicing
    ) -> pb.ListProposalsResponse:
        """See the contract."""
        found, token = await self._caring.proposals(
            principal(),
            request.space,
            ProposalState(request.state or ProposalState.WAITING),
            request.page_size,
            request.page_token,
        )
        return pb.ListProposalsResponse(
            proposals=map(convert.to_proposal, found), next_page_token=token
        )

    async def DecideProposal(
        self, request: pb.DecideProposalRequest, context: Servicing
    ) -> pb.DecideProposalResponse:
        """See the contract."""
        proposal, commit = await self._caring.decide(
            principal(), request.proposal_id, accept=request.accept
        )
        return pb.DecideProposalResponse(
            proposal=convert.to_proposal(proposal),
            commit=None if commit is None else convert.to_commit(commit),
        )

    async def ErasePerson(
        self, request: pb.ErasePersonRequest, context: Servicing
    ) -> pb.ErasePersonResponse:
        """See the contract."""
        erasure = await self._caring.erase(principal(), request.person)
        return pb.ErasePersonResponse(erasure=convert.to_erasure(erasure))

    async def GetErasure(
        self, request: pb.GetErasureRequest, context: Servicing
    ) -> pb.GetErasureResponse:
        """See the contract."""
        erasure = await self._caring.erasure(principal(), request.erasure_id)
        return pb.GetErasureResponse(erasure=convert.to_erasure(erasure))

    async def ListErasures(
        self, request: pb.ListErasuresRequest, context: Servicing
    ) -> pb.ListErasuresResponse:
        """See the contract."""
        found, token = await self._caring.erasures(
            principal(), request.page_size, request.page_token
        )
        return pb.ListErasuresResponse(
            erasures=map(convert.to_erasure, found), next_page_token=token
        )
