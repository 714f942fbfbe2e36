"""The ingest module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import grpc
from plexus.ingest.v1 import document_pb2, document_service_pb2
from plexus.ingest.v1 import feed_service_pb2 as feed_pb
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub
from plexus.ingest.v1.feed_service_pb2_grpc import FeedServiceStub

from services.context.domain.conditions import Both, Not, equal
from services.context.domain.entries import DOCUMENT, Entry, PassageFacts, passage_entry
from services.context.domain.sources import Change, ChangedDocument, Kind, Source, Trust
from services.context.ports import Superseded
from services.context.remote.answers import answers
from services.runtime import clock
from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import Aborted, NotFound

_PAGE = 64


class RemoteDocuments:
    """See Documents and Feed."""

    name = "documents"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._feed = FeedServiceStub(channel)
        self._documents = DocumentServiceStub(channel)

    async def changes(
        self, after: int, limit: int, tenant_id: str = ""
    ) -> tuple[Sequence[Change], int]:
        """See Feed."""
        request = feed_pb.ListChangesRequest(after_position=after, limit=limit)
        with acting_as(mesh_principal(tenant_id)), answers():
            reply = await self._feed.ListChanges(request)
        return [_change(each) for each in reply.changes], reply.newest_position

    async def watch(self) -> AsyncIterator[int]:
        """See Feed."""
        with acting_as(mesh_principal()), answers():
            call = self._feed.WatchChanges(feed_pb.WatchChangesRequest())
        try:
            with answers():
                async for word in call:
                    yield word.newest_position
        finally:
            call.cancel()

    async def entries(self, change: Change) -> AsyncIterator[Sequence[Entry]]:
        """See Feed."""
        changed = change.document
        if changed is None:
            return
        token = ""
        while True:
            request = document_service_pb2.ListPassagesRequest(
                document_id=changed.document_id,
                page_size=_PAGE,
                page_token=token,
                revision=changed.facts.revision,
            )
            owner = mesh_principal(change.tenant_id, changed.facts.owner_id)
            try:
                with acting_as(owner), answers():
                    reply = await self._documents.ListPassages(request)
            except (Aborted, NotFound) as error:
                raise Superseded from error
            yield [_entry(changed.facts, each) for each in reply.passages]
            token = reply.next_page_token
            if not token:
                return

    async def passages(self, passage_ids: Sequence[str]) -> Sequence[Source]:
        """See Documents."""
        with answers():
            reply = await self._feed.ReadPassages(
                feed_pb.ReadPassagesRequest(passage_ids=passage_ids)
            )
        documents = {each.document_id: each for each in reply.documents}
        return [
            _source(documents[each.document_id], each)
            for each in reply.passages
            if each.document_id in documents
        ]

    async def document(self, document_id: str, limit: int) -> tuple[Sequence[Source], bool]:
        """See Documents."""
        about = document_service_pb2.GetDocumentRequest(document_id=document_id)
        with answers():
            document = (await self._documents.GetDocument(about)).document
        found: list[Source] = []
        token = ""
        while len(found) < limit:
            request = document_service_pb2.ListPassagesRequest(
                document_id=document_id,
                page_size=min(_PAGE, limit - len(found)),
                page_token=token,
                revision=document.revision,
            )
            with answers():
                reply = await self._documents.ListPassages(request)
            found += [_source(document, each) for each in reply.passages]
            token = reply.next_page_token
            if not token:
                return found, False
        return found, True


def _change(change: feed_pb.DocumentChange) -> Change:
    its = Both((equal("kind", DOCUMENT), equal("document_id", change.document_id)))
    if not change.HasField("document"):
        return Change(change.position, change.tenant_id, forgets=its)
    document = change.document
    older = Both((its, Not(equal("revision", str(document.revision)))))
    changed = ChangedDocument(change.document_id, _facts(change.tenant_id, document))
    return Change(change.position, change.tenant_id, document=changed, forgets=older)


def _facts(tenant_id: str, document: document_pb2.Document) -> PassageFacts:
    """What is known of all passages of a document."""
    return PassageFacts(
        tenant_id=tenant_id,
        document_id=document.document_id,
        revision=document.revision,
        title=document.title,
        uri=document.uri,
        collection=document.collection,
        media_type=document.media_type,
        owner_id=document.owner_id,
        private=document.visibility == document_pb2.VISIBILITY_OWNER,
        time=clock.from_timestamp(document.create_time),
        attributes=dict(document.attributes),
    )


def _entry(facts: PassageFacts, passage: document_pb2.Passage) -> Entry:
    return passage_entry(
        replace(
            facts,
            passage_id=passage.passage_id,
            text=passage.text,
            headings=tuple(passage.headings),
            page=passage.page,
        )
    )


def _source(document: document_pb2.Document, passage: document_pb2.Passage) -> Source:
    return Source(
        Kind.DOCUMENT,
        passage.text,
        title=document.title,
        document_id=passage.document_id,
        passage_id=passage.passage_id,
        page=passage.page,
        headings=tuple(passage.headings),
        start=passage.start,
        end=passage.end,
        uri=document.uri,
        collection=document.collection,
        time=clock.from_timestamp(document.create_time),
        trust=Trust.OUTSIDE,
    )
