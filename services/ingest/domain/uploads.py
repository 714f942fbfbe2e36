"""Uploads: documents on their way, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from services.ingest.domain.documents import Info
from services.runtime.errors import Aborted, FailedPrecondition, InvalidRequest

MAX_PART = 3_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A document on its way. Times are microseconds."""

    upload_id: str
    tenant_id: str
    user_id: str
    info: Info
    size: int
    sha256: str
    received: int
    heap_id: str
    document_id: str
    expire_time: int


def fits(upload: Upload, start: int, size: int) -> bool:
    """Whether a part is the next one; False where it is kept already.

    Raises:
        Aborted: It begins elsewhere.
        InvalidRequest: It passes the upload's size, or is empty or too large.
    """
    if not 1 <= size <= MAX_PART:
        raise InvalidRequest.field("part.data", f"must have 1 to {MAX_PART} bytes")
    if start + size > upload.size:
        raise InvalidRequest.field("part.data", f"passes the upload's size, {upload.size}")
    if start + size <= upload.received:
        return False
    if start != upload.received:
        raise Aborted(
            f"The next part begins at {upload.received}.",
            metadata={"received_size": str(upload.received)},
        )
    return True


def incomplete(message: str, received: int) -> FailedPrecondition:
    """The error where an upload cannot become a document yet."""
    return FailedPrecondition(
        message, reason="UPLOAD_INCOMPLETE", metadata={"received_size": str(received)}
    )
