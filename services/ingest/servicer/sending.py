"""Streams of bytes on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from plexus.ingest.v1 import document_pb2, document_service_pb2

from services.ingest.domain.documents import Document
from services.runtime.errors import InvalidRequest


async def info_of(
    requests: AsyncIterator[document_service_pb2.SendDocumentRequest],
) -> document_pb2.DocumentInfo:
    """What is said of a document that is sent: the stream's first message.

    Raises:
        InvalidRequest: The first message is another one, or there is none.
    """
    async for request in requests:
        if request.HasField("info"):
            return request.info
        break
    raise InvalidRequest.field("info", "must be in the first message")


async def pieces_of(
    requests: AsyncIterator[document_service_pb2.SendDocumentRequest],
) -> AsyncIterator[bytes]:
    """The bytes that follow.

    Raises:
        InvalidRequest: A message has something else.
    """
    async for request in requests:
        if not request.HasField("data"):
            raise InvalidRequest.field("data", "must be in every message after the first")
        yield request.data


def headers_of(document: Document) -> tuple[tuple[str, str], ...]:
    """Headers with which a browser keeps a document rather than show it as a page of ours."""
    name = quote(document.file_name or document.document_id, safe="")
    return (
        ("content-disposition", f"attachment; filename*=UTF-8''{name}"),
        ("x-content-type-options", "nosniff"),
    )
