"""Documents and passages."""

from __future__ import annotations

from dataclasses import replace

from plexus.ingest.v1 import document_pb2 as pb

from services.ingest.domain.documents import Document, Failure, Info, State, Visibility
from services.ingest.domain.passages import Placed
from services.runtime import clock


def to_info(info: pb.DocumentInfo) -> Info:
    """What is said of a document."""
    return Info(
        title=info.title,
        file_name=info.file_name,
        media_type=info.media_type,
        uri=info.uri,
        collection=info.collection,
        visibility=to_visibility(info.visibility) or Visibility.TENANT,
        attributes=dict(info.attributes),
    )


def to_visibility(visibility: int) -> Visibility | None:
    """Who finds it; None where nothing is said."""
    return Visibility(visibility) if visibility else None


def from_document(document: Document) -> pb.Document:
    """The contract's form of a document."""
    return pb.Document(
        document_id=document.document_id,
        title=document.title,
        file_name=document.file_name,
        media_type=document.media_type,
        size=document.size,
        sha256=document.sha256,
        uri=document.uri,
        collection=document.collection,
        visibility=pb.Visibility.ValueType(int(document.visibility)),
        owner_id=document.owner_id,
        source_id=document.source_id,
        attributes=document.attributes,
        state=pb.DocumentState.ValueType(int(document.state)),
        failure=_from_failure(document.failure) if document.failure else None,
        percent=document.percent if document.state is State.READING else 0,
        revision=document.revision,
        passage_count=document.passage_count,
        page_count=document.page_count,
        create_time=clock.to_timestamp(document.create_time),
        update_time=clock.to_timestamp(document.update_time),
        parent_id=document.parent_id,
        etag=document.etag,
    )


def _from_failure(failure: Failure) -> pb.DocumentFailure:
    return pb.DocumentFailure(
        reason=pb.DocumentFailureReason.ValueType(int(failure.reason)),
        message=failure.message,
        time=clock.to_timestamp(failure.time),
    )


def from_placed(placed: Placed, revision: int) -> pb.Passage:
    """The contract's form of a passage."""
    passage = placed.passage
    return pb.Passage(
        passage_id=placed.passage_id,
        document_id=placed.document_id,
        revision=revision,
        place=placed.place,
        text=passage.text,
        kind=pb.PassageKind.ValueType(int(passage.kind)),
        headings=passage.headings,
        page=passage.page,
        start=passage.start,
        end=passage.end,
    )


def with_type(info: Info, media_type: str) -> Info:
    """The same, of a document that is said to be of a media type."""
    return replace(info, media_type=media_type)
