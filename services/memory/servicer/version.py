"""VersionService over gRPC."""

from __future__ import annotations

from plexus.memory.v1 import version_service_pb2 as pb
from plexus.memory.v1.version_service_pb2_grpc import VersionServiceServicer

from services.memory import convert
from services.memory.service.browsing import Browsing
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing


class VersionServicer(VersionServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, browsing: Browsing) -> None:
        self._browsing = browsing

    async def ListSpaces(
        self, request: pb.ListSpacesRequest, context: Servicing
    ) -> pb.ListSpacesResponse:
        """See the contract."""
        found, token = await self._browsing.spaces(
            principal(), request.page_size, request.page_token
        )
        return pb.ListSpacesResponse(spaces=map(convert.to_space, found), next_page_token=token)

    async def GetSpace(
        self, request: pb.GetSpaceRequest, context: Servicing
    ) -> pb.GetSpaceResponse:
        """See the contract."""
        found = await self._browsing.space(principal(), request.space)
        return pb.GetSpaceResponse(space=convert.to_space(found))

    async def UpdateSpace(
        self, request: pb.UpdateSpaceRequest, context: Servicing
    ) -> pb.UpdateSpaceResponse:
        """See the contract."""
        policy = convert.from_policy(request.policy) if request.HasField("policy") else None
        members = tuple(request.members.user_ids) if request.HasField("members") else None
        changed = await self._browsing.update_space(
            principal(), request.space, policy, members, request.etag
        )
        return pb.UpdateSpaceResponse(space=convert.to_space(changed))

    async def ListCommits(
        self, request: pb.ListCommitsRequest, context: Servicing
    ) -> pb.ListCommitsResponse:
        """See the contract."""
        found, token = await self._browsing.commits(
            principal(),
            request.space,
            convert.from_revision(request.revision),
            request.page_size,
            request.page_token,
        )
        return pb.ListCommitsResponse(commits=map(convert.to_commit, found), next_page_token=token)

    async def GetCommit(
        self, request: pb.GetCommitRequest, context: Servicing
    ) -> pb.GetCommitResponse:
        """See the contract."""
        found = await self._browsing.commit(principal(), request.space, request.commit_id)
        return pb.GetCommitResponse(commit=convert.to_commit(found))

    async def DiffRevisions(
        self, request: pb.DiffRevisionsRequest, context: Servicing
    ) -> pb.DiffRevisionsResponse:
        """See the contract."""
        found, token, first, second = await self._browsing.diff(
            principal(),
            request.space,
            convert.from_revision(getattr(request, "from"), "from"),
            convert.from_revision(request.to, "to"),
            request.page_size,
            request.page_token,
        )
        return pb.DiffRevisionsResponse(
            diffs=convert.to_diffs(found),
            next_page_token=token,
            from_commit_id=first,
            to_commit_id=second,
        )
