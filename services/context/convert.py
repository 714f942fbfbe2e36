"""Messages of the contract to what the service speaks of, and back."""

from __future__ import annotations

from plexus.context.v1 import digest_service_pb2, inject_service_pb2, source_pb2
from plexus.context.v1 import search_service_pb2 as pb
from plexus.llm.v1 import model_pb2

from services.context.domain.asking import Answer, Hit, Query
from services.context.domain.digests import DEFAULT_SENTENCES, Digest, Of, Wanted
from services.context.domain.prompts import (
    DEFAULT_SOURCES,
    DEFAULT_TOKENS,
    LEAST_TOKENS,
    Ask,
    Block,
    Prompt,
    Voice,
)
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


def from_summarize(request: digest_service_pb2.SummarizeRequest) -> Wanted:
    """What is to be summarised."""
    of = Of(request.WhichOneof("of"))
    return Wanted(
        of,
        str(getattr(request, of.value)),
        request.filter,
        request.max_sentences or DEFAULT_SENTENCES,
        request.model,
    )


def to_digest(digest: Digest) -> digest_service_pb2.SummarizeResponse:
    """A summary."""
    return digest_service_pb2.SummarizeResponse(
        sentences=[
            digest_service_pb2.DigestSentence(
                text=each.text, citations=map(to_citation, each.citations)
            )
            for each in digest.sentences
        ],
        sources=map(to_source, digest.sources),
        found=digest.found,
        model=digest.model,
        unsupported_count=digest.unsupported,
        partial=digest.partial,
    )


def from_inject(request: inject_service_pb2.InjectRequest) -> Ask:
    """What a prompt is asked for.

    Raises:
        InvalidRequest: It is for fewer tokens than a prompt has.
    """
    if 0 < request.max_tokens < LEAST_TOKENS:
        raise InvalidRequest.field("max_tokens", f"must be 0 or at least {LEAST_TOKENS}")
    return Ask(
        input=request.input,
        session_id=request.session_id,
        agent_id=request.agent_id,
        instructions=request.instructions,
        max_tokens=request.max_tokens or DEFAULT_TOKENS,
        filter=request.filter,
        spaces=tuple(request.spaces),
        max_sources=request.max_sources if request.HasField("max_sources") else DEFAULT_SOURCES,
        explain=request.explain,
        model=request.model,
    )


def to_prompt(prompt: Prompt, *, explain: bool) -> inject_service_pb2.InjectResponse:
    """A prompt, with its reasons where they were asked for."""
    return inject_service_pb2.InjectResponse(
        blocks=[_block(each, explain=explain) for each in prompt.blocks],
        tokens=prompt.tokens,
        left_out=[
            inject_service_pb2.LeftOut(
                kind=inject_service_pb2.BlockKind.ValueType(each.kind),
                source=to_source(each.source),
                reason=each.why.value,
                tokens=each.tokens,
            )
            for each in prompt.left_out
        ],
        stale=prompt.stale,
    )


def _block(block: Block, *, explain: bool) -> inject_service_pb2.PromptBlock:
    role, origin = _VOICES[block.voice]
    return inject_service_pb2.PromptBlock(
        kind=inject_service_pb2.BlockKind.ValueType(block.kind),
        message=model_pb2.ModelMessage(role=role, text=block.text, origin=origin),
        trust=source_pb2.Trust.ValueType(block.trust),
        tokens=block.tokens,
        source=None if block.source is None else to_source(block.source),
        mark=block.mark,
        reason=block.reason if explain else "",
    )


_VOICES = {
    Voice.INSTALLATION: (model_pb2.MESSAGE_ROLE_SYSTEM, model_pb2.MESSAGE_ORIGIN_SYSTEM),
    Voice.AUTHOR: (model_pb2.MESSAGE_ROLE_SYSTEM, model_pb2.MESSAGE_ORIGIN_DEVELOPER),
    # Of what people and models said, by a model: as far to be trusted as they are.
    Voice.SUMMARY: (model_pb2.MESSAGE_ROLE_USER, model_pb2.MESSAGE_ORIGIN_MODEL),
    Voice.RETRIEVED: (model_pb2.MESSAGE_ROLE_USER, model_pb2.MESSAGE_ORIGIN_RETRIEVED),
    Voice.USER: (model_pb2.MESSAGE_ROLE_USER, model_pb2.MESSAGE_ORIGIN_USER),
    Voice.AGENT: (model_pb2.MESSAGE_ROLE_ASSISTANT, model_pb2.MESSAGE_ORIGIN_MODEL),
}
