"""A first look: some documents in, and a question answered from them, with its sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from plexus.ingest.v1 import document_pb2
from plexus.ingest.v1 import document_service_pb2 as pb
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub

from services.cli.client import Client, deadlines
from services.cli.errors import Failure

COLLECTION = "plexus"
QUESTIONS = ("Does a run depend on the connection?", "How is the master key replaced?")
_WAIT_SECONDS = 60.0
_ENDS = (document_pb2.DOCUMENT_STATE_READY, document_pb2.DOCUMENT_STATE_FAILED)


@dataclass(frozen=True)
class Taken:
    """A document that was taken in, or why it was not."""

    title: str
    passages: int
    problem: str


def own_documents(folder: Path) -> dict[str, str]:
    """The project's documents below a folder: their texts, by their paths in it.

    Raises:
        Failure: There are none.
    """
    found = {
        path.relative_to(folder).as_posix(): path.read_text()
        for pattern in ("*.md", "docs/*.md", "deploy/*.md", "proto/*.md", "services/*.md")
        for path in sorted(folder.glob(pattern))
    }
    if not found:
        raise Failure(f"There are no documents (*.md) in {folder}. Name a folder with --folder.")
    return found


async def take_in(client: Client, documents: Mapping[str, str]) -> AsyncGenerator[Taken, None]:
    """Bring documents, and wait until each is read. What is there already is not brought again.

    Raises:
        Failure: A document is not read in time.
        AioRpcError: The installation refused.
    """
    stub = DocumentServiceStub(client.channel)
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            brought = [await _bring(client, stub, name, text) for name, text in documents.items()]
            for document in brought:
                yield await _read(client, stub, document)
    except TimeoutError:
        raise Failure(
            f"The documents were not read within {_WAIT_SECONDS:g} seconds. See how far they are "
            "with `plexus call ingest/ListDocuments`."
        ) from None


async def _bring(
    client: Client, stub: DocumentServiceStub, name: str, text: str
) -> document_pb2.Document:
    request = pb.CreateDocumentRequest(
        info=document_pb2.DocumentInfo(
            file_name=name.rpartition("/")[2],
            media_type="text/markdown",
            uri=f"plexus:{name}",
            collection=COLLECTION,
        ),
        text=text,
    )
    limit = deadlines("ingest")["CreateDocument"]
    created = await client.unary(
        lambda metadata: stub.CreateDocument(request, metadata=metadata, timeout=limit)
    )
    return created.document


async def _read(
    client: Client, stub: DocumentServiceStub, document: document_pb2.Document
) -> Taken:
    watch = pb.WatchDocumentRequest(document_id=document.document_id)
    states = client.stream(
        lambda metadata: stub.WatchDocument(watch, metadata=metadata, timeout=_WAIT_SECONDS)
    )
    async with aclosing(states):
        async for state in states:
            document = state.document
            if document.state in _ENDS:
                break
    return Taken(document.title, document.passage_count, document.failure.message)
