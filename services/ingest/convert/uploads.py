"""Uploads."""

from __future__ import annotations

from plexus.ingest.v1 import upload_service_pb2 as pb

from services.ingest.domain.uploads import Upload
from services.runtime import clock


def from_upload(upload: Upload) -> pb.Upload:
    """The contract's form of an upload."""
    return pb.Upload(
        upload_id=upload.upload_id,
        size=upload.size,
        received_size=upload.received,
        expire_time=clock.to_timestamp(upload.expire_time),
        document_id=upload.document_id,
    )
