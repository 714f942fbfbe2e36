"""Messages of the contract to what the service speaks of, and back."""

from __future__ import annotations

from plexus.context.v1 import search_service_pb2 as pb
from plexus.context.v1 import source_pb2

from services.context.domain.asking import Answer, Hit, Query
from services.context.domain.ranking import Signal
from services.context.domain.sources import Citation, Source, Span
from services.runtime import clock
from services.runtime.errors import InvalidRequest


def from_search(request: pb.SearchRequest) -> Query:
    """What is asked.

    Raises:
        InvalidRequest: A signal is none.
    """
    if pb.SIGNAL_UNSPECIFIED in request.signals:
        raise InvalidRequest.field("signals", "SIGNAL_UNSPECIFIED is no signal")
    as_of = clock.from_timestamp(request.as_of) if request.HasField("as_of") else None
    return Query(
        text=request.query,
        filter=request.filter,
        spaces=tuple(request.spaces),
        documents=not request.spaces,
        signals=tuple(Signal(each) for each in dict.fromkeys(request.signals)),
        as_of=as_of,
        rerank_model=request.rerank_model,
    )


def to_answer(answer: Answer) -> pb.SearchResponse:
    """What was found."""
    return pb.SearchResponse(
        hits=map(_hit, answer.hits),
        next_page_token=answer.next_page_token,
        stale=answer.stale,
        signals=[pb.Signal.ValueType(each) for each in answer.signals],
        embedding_model=answer.embedding_model,
    )


def _hit(hit: Hit) -> pb.SearchHit:
    return pb.SearchHit(
        source=to_source(hit.source),
        score=hit.score,
        ranks=[
            pb.SignalRank(signal=pb.Signal.ValueType(each.signal), rank=each.rank, score=each.score)
            for each in hit.ranks
        ],
        highlights=map(to_span, hit.highlights),
    )


def to_span(span: Span) -> source_pb2.Span:
    """A part of a text."""
    return source_pb2.Span(start=span.start, end=span.end)


def to_citation(citation: Citation) -> source_pb2.Citation:
    """A part of a text and what stands behind it."""
    return source_pb2.Citation(
        cited_in=to_span(citation.cited_in),
        source_index=citation.source_index,
        span=to_span(citation.span),
        quote=citation.quote,
    )


def to_source(source: Source) -> source_pb2.Source:
    """Something that can be cited."""
    return source_pb2.Source(
        kind=source_pb2.SourceKind.ValueType(source.kind),
        title=source.title,
        text=source.text,
        document_id=source.document_id,
        passage_id=source.passage_id,
        page=source.page,
        headings=source.headings,
        start=source.start,
        end=source.end,
        memory_id=source.memory_id,
        version_id=source.version_id,
        space=source.space,
        message_id=source.message_id,
        uri=source.uri,
        collection=source.collection,
        time=clock.to_timestamp(source.time),
        trust=source_pb2.Trust.ValueType(source.trust),
    )
