"""UploadService over gRPC."""

from __future__ import annotations

from plexus.ingest.v1 import upload_service_pb2 as pb
from plexus.ingest.v1.upload_service_pb2_grpc import UploadServiceServicer

from services.ingest.convert.documents import from_document, to_info
from services.ingest.convert.uploads import from_upload
from services.ingest.service.uploads import Uploads
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable


class UploadServicer(UploadServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def CreateUpload(
        self, request: pb.CreateUploadRequest, context: Servicing
    ) -> pb.CreateUploadResponse:
        """See the contract."""
        upload = await self._uploads.create(
            principal(),
            to_info(request.info),
            request.size,
            request.sha256,
            Repeatable.of(request, request.idempotency_key),
        )
        return pb.CreateUploadResponse(upload=from_upload(upload))

    async def WriteUpload(
        self, request: pb.WriteUploadRequest, context: Servicing
    ) -> pb.WriteUploadResponse:
        """See the contract."""
        upload = await self._uploads.write(
            principal(), request.upload_id, request.start, request.part.data
        )
        return pb.WriteUploadResponse(upload=from_upload(upload))

    async def GetUpload(
        self, request: pb.GetUploadRequest, context: Servicing
    ) -> pb.GetUploadResponse:
        """See the contract."""
        upload = await self._uploads.get(principal(), request.upload_id)
        return pb.GetUploadResponse(upload=from_upload(upload))

    async def CompleteUpload(
        self, request: pb.CompleteUploadRequest, context: Servicing
    ) -> pb.CompleteUploadResponse:
        """See the contract."""
        brought = await self._uploads.complete(principal(), request.upload_id)
        document = from_document(brought.document)
        return pb.CompleteUploadResponse(document=document, unchanged=brought.unchanged)

    async def DeleteUpload(
        self, request: pb.DeleteUploadRequest, context: Servicing
    ) -> pb.DeleteUploadResponse:
        """See the contract."""
        await self._uploads.delete(principal(), request.upload_id)
        return pb.DeleteUploadResponse()
