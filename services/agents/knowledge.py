"""What agents look up before they ask a model, over the contracts of context."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from plexus.context.v1 import digest_service_pb2 as digest_pb
from plexus.context.v1 import inject_service_pb2 as inject_pb
from plexus.context.v1 import source_pb2
from plexus.context.v1.digest_service_pb2_grpc import DigestServiceStub
from plexus.context.v1.inject_service_pb2_grpc import InjectServiceStub

from services.agents.domain import Agent, Citation, Source
from services.agents.ports import Origin, Part, Prompt, Role
from services.runtime import clock
from services.runtime.status import remote_errors

# A run waits no longer for what it can do without.
_SECONDS = 5.0
_MOST_CITED = 100
_MOST_TEXT = 20_000


class RemoteKnowledge:
    """The context module."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._inject = InjectServiceStub(channel)
        self._digest = DigestServiceStub(channel)

    async def prompt(self, agent: Agent, session_id: str, asked: str, max_tokens: int) -> Prompt:
        """See Knowledge."""
        request = inject_pb.InjectRequest(
            input=asked,
            session_id=session_id,
            agent_id=agent.agent_id,
            instructions=agent.instructions,
            max_tokens=max_tokens,
            model=agent.model,
        )
        with remote_errors():
            reply = await self._inject.Inject(request, timeout=_SECONDS)
        marked = sorted((each for each in reply.blocks if each.mark), key=lambda each: each.mark)
        return Prompt(
            [_part(each) for each in reply.blocks], [_source(each.source) for each in marked]
        )

    async def citations(self, answer: str, sources: Sequence[Source]) -> Sequence[Citation]:
        """See Knowledge."""
        request = digest_pb.AttributeRequest(
            text=answer,
            source_texts=[each.text[:_MOST_TEXT] for each in sources[:_MOST_CITED]],
        )
        with remote_errors():
            reply = await self._digest.Attribute(request, timeout=_SECONDS)
        return [
            Citation(
                sources[each.source_index],
                (each.cited_in.start, each.cited_in.end),
                (each.span.start, each.span.end),
                each.quote,
            )
            for each in reply.citations
        ]


def _part(block: inject_pb.PromptBlock) -> Part:
    message = block.message
    return Part(Role(message.role), Origin(message.origin), message.text)


def _source(source: source_pb2.Source) -> Source:
    return Source(
        kind=source.kind,
        title=source.title,
        text=source.text,
        document_id=source.document_id,
        passage_id=source.passage_id,
        page=source.page,
        headings=tuple(source.headings),
        start=source.start,
        end=source.end,
        memory_id=source.memory_id,
        version_id=source.version_id,
        space=source.space,
        message_id=source.message_id,
        uri=source.uri,
        collection=source.collection,
        time=clock.from_timestamp(source.time) if source.HasField("time") else None,
        trust=source.trust,
    )
