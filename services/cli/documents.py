"""Documents at the command line: files sent in parts, and gone on with where they were cut off."""

from __future__ import annotations

import hashlib
import mimetypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from google.api.httpbody_pb2 import HttpBody
from plexus.ingest.v1 import document_pb2, document_service_pb2, upload_service_pb2
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub
from plexus.ingest.v1.upload_service_pb2_grpc import UploadServiceStub

from services.cli import output
from services.cli.client import Client, deadlines

_PART = 1_048_576
_PAGE = 100
_STATES = ("", "waiting", "reading", "ready", "failed")
# Of several attempts, one goes on with what the one before has sent.
_ATTEMPTS = 5
_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}
Tell = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of documents that are brought."""

    collection: str
    title: str
    private: bool

    def info(self, file_name: str = "") -> document_pb2.DocumentInfo:
        """The contract's form of it."""
        owner, tenant = document_pb2.VISIBILITY_OWNER, document_pb2.VISIBILITY_TENANT
        return document_pb2.DocumentInfo(
            title=self.title,
            file_name=file_name,
            media_type=mimetypes.guess_type(file_name)[0] or "",
            collection=self.collection,
            visibility=owner if self.private else tenant,
        )


class _Calls:
    """Calls of the contract, each with its deadline."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.documents = DocumentServiceStub(client.channel)
        self.uploads = UploadServiceStub(client.channel)
        self.seconds = deadlines("ingest")

    async def create(
        self, request: document_service_pb2.CreateDocumentRequest
    ) -> document_pb2.Document:
        reply = await self.client.unary(
            lambda metadata: self.documents.CreateDocument(
                request, metadata=metadata, timeout=self.seconds["CreateDocument"]
            )
        )
        return reply.document

    async def upload(self, path: Path, said: Said, tell: Tell) -> document_pb2.Document:
        """Send a file in parts; whatever was sent of it before is not sent again."""
        for attempt in range(_ATTEMPTS):
            try:
                return await self._upload(path, said, tell)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt raises")

    async def _upload(self, path: Path, said: Said, tell: Tell) -> document_pb2.Document:
        size = _size(path)
        begin = upload_service_pb2.CreateUploadRequest(
            info=said.info(path.name), size=size, idempotency_key=_key(path, said)
        )
        made = await self.client.unary(
            lambda metadata: self.uploads.CreateUpload(
                begin, metadata=metadata, timeout=self.seconds["CreateUpload"]
            )
        )
        upload = made.upload
        with path.open("rb") as file:
            while upload.received_size < size:
                file.seek(upload.received_size)
                part = upload_service_pb2.WriteUploadRequest(
                    upload_id=upload.upload_id,
                    start=upload.received_size,
                    part=HttpBody(data=file.read(_PART)),
                )
                written = await self.client.unary(
                    lambda metadata, part=part: self.uploads.WriteUpload(  # type: ignore[misc]
                        part, metadata=metadata, timeout=self.seconds["WriteUpload"]
                    )
                )
                upload = written.upload
                tell(upload.received_size / size)
        end = upload_service_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
        done = await self.client.unary(
            lambda metadata: self.uploads.CompleteUpload(
                end, metadata=metadata, timeout=self.seconds["CompleteUpload"]
            )
        )
        return done.document

    async def read(self, document: document_pb2.Document, tell: Tell) -> document_pb2.Document:
        """Wait until a document is read, or cannot be."""
        request = document_service_pb2.WatchDocumentRequest(document_id=document.document_id)
        states = self.client.stream(
            lambda metadata: self.documents.WatchDocument(
                request, metadata=metadata, timeout=self.seconds["WatchDocument"]
            )
        )
        async for reply in states:
            document = reply.document
            tell(document.percent / 100)
        return document


async def bring(client: Client, what: Sequence[str], said: Said, *, wait: bool) -> int:
    """Bring files and addresses, and print what became of each."""
    calls = _Calls(client)
    rows: list[list[str]] = []
    failed = False
    for each in what:
        with _bar(each) as tell:
            if "://" in each:
                document = await calls.create(
                    document_service_pb2.CreateDocumentRequest(info=said.info(), url=each)
                )
            else:
                document = await calls.upload(Path(each), said, lambda done: tell("sent", done))
            if wait:
                document = await calls.read(document, lambda done: tell("read", done))
        failed = failed or document.state == document_pb2.DOCUMENT_STATE_FAILED
        rows.append(
            [document.document_id, _STATES[document.state], document.failure.message or each]
        )
    output.table(("document", "state", "what"), rows)
    return int(failed)


async def show_list(client: Client, collection: str, state: int, limit: int) -> int:
    """Print a table of documents."""
    calls = _Calls(client)
    rows: list[list[str]] = []
    token = ""
    while len(rows) < limit:
        request = document_service_pb2.ListDocumentsRequest(
            page_size=min(_PAGE, limit - len(rows)),
            page_token=token,
            collection=collection,
            state=document_pb2.DocumentState.ValueType(state),
        )
        page = await client.unary(
            lambda metadata, request=request: calls.documents.ListDocuments(  # type: ignore[misc]
                request, metadata=metadata, timeout=calls.seconds["ListDocuments"]
            )
        )
        rows += [
            [
                each.document_id,
                _STATES[each.state],
                str(each.passage_count),
                each.collection,
                each.title,
            ]
            for each in page.documents
        ]
        token = page.next_page_token
        if not token:
            break
    output.table(("document", "state", "passages", "collection", "title"), rows)
    return 0


async def show_one(client: Client, document_id: str, *, passages: bool) -> int:
    """Print what is known of a document, or what it says."""
    calls = _Calls(client)
    if passages:
        await _show_passages(calls, document_id)
        return 0
    request = document_service_pb2.GetDocumentRequest(document_id=document_id)
    reply = await client.unary(
        lambda metadata: calls.documents.GetDocument(
            request, metadata=metadata, timeout=calls.seconds["GetDocument"]
        )
    )
    found = reply.document
    private = found.visibility == document_pb2.VISIBILITY_OWNER
    pairs = {
        "document": found.document_id,
        "title": found.title,
        "state": _STATES[found.state],
        "failure": found.failure.message,
        "kind": found.media_type,
        "size": str(found.size),
        "pages": str(found.page_count or ""),
        "passages": str(found.passage_count),
        "collection": found.collection,
        "found by": "its owner" if private else "everyone of the tenant",
        "uri": found.uri,
        "changed": datetime.fromtimestamp(found.update_time.seconds, UTC).isoformat(" "),
        **dict(found.attributes),
    }
    output.facts({name: value for name, value in pairs.items() if value})
    return 0


async def _show_passages(calls: _Calls, document_id: str) -> None:
    token = ""
    while True:
        request = document_service_pb2.ListPassagesRequest(
            document_id=document_id, page_size=_PAGE, page_token=token
        )
        page = await calls.client.unary(
            lambda metadata, request=request: calls.documents.ListPassages(  # type: ignore[misc]
                request, metadata=metadata, timeout=calls.seconds["ListPassages"]
            )
        )
        for each in page.passages:
            where = [f"page {each.page}"] if each.page else []
            output.write(f"[{', '.join([*where, ' > '.join(each.headings)])}]\n{each.text}\n\n")
        token = page.next_page_token
        if not token:
            return


async def remove(client: Client, document_ids: Sequence[str]) -> int:
    """Remove documents."""
    calls = _Calls(client)
    for document_id in document_ids:
        request = document_service_pb2.DeleteDocumentRequest(document_id=document_id)
        await client.unary(
            lambda metadata, request=request: calls.documents.DeleteDocument(  # type: ignore[misc]
                request, metadata=metadata, timeout=calls.seconds["DeleteDocument"]
            )
        )
        output.note(f"{document_id} is gone.")
    return 0


def _size(path: Path) -> int:
    return path.stat().st_size


def _key(path: Path, said: Said) -> str:
    """The same for the same file as it is, so that the same command goes on with its upload."""
    told = path.stat()
    parts = [str(path.absolute()), told.st_size, told.st_mtime_ns, said]
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()


@contextmanager
def _bar(name: str) -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal that moves as a document is sent and read; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _what, _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(output.harmless(name), total=2.0)

        def tell(what: str, done: float) -> None:
            progress.update(task, completed=done + (what == "read"))

        yield tell
