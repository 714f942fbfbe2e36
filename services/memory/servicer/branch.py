"""BranchService over gRPC."""

from __future__ import annotations

from plexus.memory.v1 import branch_service_pb2 as pb
from plexus.memory.v1.branch_service_pb2_grpc import BranchServiceServicer

from services.memory import convert
from services.memory.domain.merging import Side
from services.memory.domain.values import MAIN
from services.memory.service.branching import Branching, Merge
from services.memory.tables import branches, tags
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class BranchServicer(BranchServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, branching: Branching) -> None:
        self._branching = branching

    async def ListBranches(
        self, request: pb.ListBranchesRequest, context: Servicing
    ) -> pb.ListBranchesResponse:
        """See the contract."""
        found, token = await self._branching.names(
            principal(), branches, request.space, request.page_size, request.page_token
        )
        return pb.ListBranchesResponse(
            branches=map(convert.to_branch, found), next_page_token=token
        )

    async def CreateBranch(
        self, request: pb.CreateBranchRequest, context: Servicing
    ) -> pb.CreateBranchResponse:
        """See the contract."""
        at = convert.from_revision(request.revision)
        made = await self._branching.add(principal(), branches, request.space, request.branch, at)
        return pb.CreateBranchResponse(branch=convert.to_branch(made))

    async def DeleteBranch(
        self, request: pb.DeleteBranchRequest, context: Servicing
    ) -> pb.DeleteBranchResponse:
        """See the contract."""
        await self._branching.delete(principal(), branches, request.space, request.branch)
        return pb.DeleteBranchResponse()

    async def MergeBranch(
        self, request: pb.MergeBranchRequest, context: Servicing
    ) -> pb.MergeBranchResponse:
        """See the contract."""
        asked = Merge(
            space=request.space,
            branch=request.branch,
            into=request.into or MAIN,
            expected_head=request.expected_head,
            sides={each.memory_id: Side(each.side) for each in request.resolutions},
            message=request.message,
            dry_run=request.dry_run,
        )
        commit, conflicts, changed = await self._branching.merge(principal(), asked)
        return pb.MergeBranchResponse(
            commit=None if commit is None else convert.to_commit(commit),
            conflicts=convert.to_conflicts(conflicts),
            changed=changed,
        )

    async def RollbackBranch(
        self, request: pb.RollbackBranchRequest, context: Servicing
    ) -> pb.RollbackBranchResponse:
        """See the contract."""
        commit = await self._branching.roll_back(
            principal(),
            request.space,
            request.branch,
            convert.from_revision(request.revision),
            request.expected_head,
            request.message,
        )
        return pb.RollbackBranchResponse(
            commit=None if commit is None else convert.to_commit(commit)
        )

    async def ListTags(
        self, request: pb.ListTagsRequest, context: Servicing
    ) -> pb.ListTagsResponse:
        """See the contract."""
        found, token = await self._branching.names(
            principal(), tags, request.space, request.page_size, request.page_token
        )
        return pb.ListTagsResponse(tags=map(convert.to_tag, found), next_page_token=token)

    async def CreateTag(
        self, request: pb.CreateTagRequest, context: Servicing
    ) -> pb.CreateTagResponse:
        """See the contract."""
        at = convert.from_revision(request.revision)
        made = await self._branching.add(principal(), tags, request.space, request.tag, at)
        return pb.CreateTagResponse(tag=convert.to_tag(made))

    async def DeleteTag(
        self, request: pb.DeleteTagRequest, context: Servicing
    ) -> pb.DeleteTagResponse:
        """See the contract."""
        await self._branching.delete(principal(), tags, request.space, request.tag)
        return pb.DeleteTagResponse()
