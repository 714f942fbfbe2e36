"""The judged set in a real installation: brought, read, indexed, and read back as passages."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from plexus.context.v1 import search_service_pb2 as search
from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub
from plexus.ingest.v1 import document_pb2
from plexus.ingest.v1 import document_service_pb2 as pb
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub

from tests.bench.rounds import say
from tests.quality import judged
from tests.quality.measures import Passage
from tests.quality.rendering import as_docx, as_pdf

_SEED = 11
_MEDIA_TYPES = {
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".html": "text/html",
    ".csv": "text/csv",
    ".eml": "message/rfc822",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pdf": "application/pdf",
}
_RENDERERS = {".docx": as_docx, ".pdf": as_pdf}
_ENDS = {document_pb2.DOCUMENT_STATE_READY, document_pb2.DOCUMENT_STATE_FAILED}
_SECONDS = 900.0
_PAGE = 100


@dataclass(frozen=True)
class Library:
    """What an installation made of the set.

    Attributes:
        documents: Paths of the set by documents' ids; an attachment has that of its mail.
        passages: By path, in their order.
        failures: Documents that could not be read, with why.
        rendered: How many were brought in another format, by its suffix.
    """

    documents: dict[str, str]
    passages: dict[str, list[Passage]]
    failures: list[str]
    rendered: Counter[str]


class Caller:
    """Stubs of an installation for one of its users."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {token}"),)
        self._documents: Any = DocumentServiceStub(channel)
        self._search: Any = SearchServiceStub(channel)

    async def bring(self, file_name: str, uri: str, data: bytes) -> document_pb2.Document:
        """A document in."""
        media_type = _MEDIA_TYPES[Path(file_name).suffix]
        info = document_pb2.DocumentInfo(file_name=file_name, uri=uri, media_type=media_type)
        request = pb.CreateDocumentRequest(info=info, data=data)
        reply = await self._documents.CreateDocument(request, metadata=self.metadata)
        document: document_pb2.Document = reply.document
        return document

    async def all_documents(self) -> list[document_pb2.Document]:
        """Every document, with the attachments."""
        found: list[document_pb2.Document] = []
        request = pb.ListDocumentsRequest(page_size=_PAGE)
        while True:
            reply = await self._documents.ListDocuments(request, metadata=self.metadata)
            found += reply.documents
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    async def passages(self, document_id: str) -> list[document_pb2.Passage]:
        """Every passage of a document."""
        found: list[document_pb2.Passage] = []
        request = pb.ListPassagesRequest(document_id=document_id, page_size=_PAGE)
        while True:
            reply = await self._documents.ListPassages(request, metadata=self.metadata)
            found += reply.passages
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    async def index(self) -> search.GetIndexResponse:
        """How far the index is."""
        reply: search.GetIndexResponse = await self._search.GetIndex(
            search.GetIndexRequest(), metadata=self.metadata
        )
        return reply

    async def search(
        self, query: str, signals: Sequence[search.Signal.ValueType], size: int
    ) -> search.SearchResponse:
        """What answers a query."""
        request = search.SearchRequest(query=query, page_size=size, signals=signals)
        reply: search.SearchResponse = await self._search.Search(request, metadata=self.metadata)
        return reply


async def filled(caller: Caller) -> Library:
    """Bring every document, and wait until all are read and indexed."""
    formats = _formats()
    for path in judged.documents():
        uri = path.relative_to(judged.HERE).as_posix()
        data, suffix = path.read_bytes(), formats.get(path, path.suffix)
        if suffix != path.suffix:
            data = _RENDERERS[suffix](data.decode())
        await caller.bring(path.with_suffix(suffix).name, uri, data)
    async with asyncio.timeout(_SECONDS):
        while not all(each.state in _ENDS for each in await caller.all_documents()):
            await asyncio.sleep(1)
        while (await caller.index()).behind:
            await asyncio.sleep(0.5)
    documents = await caller.all_documents()
    say(f"    {len(documents)} documents with attachments are read and indexed")
    return await _read_back(caller, documents, Counter(formats.values()))


def _formats() -> dict[Path, str]:
    """The documents that are brought in another format: a tenth of Markdown, as DOCX or PDF."""
    markdown = [path for path in judged.documents() if path.suffix == ".md"]
    chosen = random.Random(_SEED).sample(markdown, len(markdown) // 10)
    return {
        path: ".pdf" if number % 3 == 2 and path.read_text().isascii() else ".docx"
        for number, path in enumerate(chosen)
    }


async def _read_back(
    caller: Caller, documents: Sequence[document_pb2.Document], rendered: Counter[str]
) -> Library:
    by_id = {each.document_id: each for each in documents}
    paths: dict[str, str] = {}
    passages: dict[str, list[Passage]] = {}
    for document in documents:
        top = document
        while top.parent_id:
            top = by_id[top.parent_id]
        paths[document.document_id] = top.uri
        for each in await caller.passages(document.document_id):
            passages.setdefault(top.uri, []).append(
                Passage(each.passage_id, top.uri, each.text, document.title, tuple(each.headings))
            )
    failures = [
        f"{paths[each.document_id]}: {each.failure.message}"
        for each in documents
        if each.state == document_pb2.DOCUMENT_STATE_FAILED
    ]
    return Library(paths, passages, failures, rendered)
