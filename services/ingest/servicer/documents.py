"""DocumentService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody
from plexus.ingest.v1 import document_service_pb2 as pb
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceServicer

from services.ingest.convert import documents as convert
from services.ingest.domain.looks import MARKDOWN
from services.ingest.service.bringing import Bringing
from services.ingest.service.documents import Change, Documents
from services.ingest.servicer.sending import headers_of, info_of, pieces_of
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable


class DocumentServicer(DocumentServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, documents: Documents, bringing: Bringing) -> None:
        self._documents = documents
        self._bringing = bringing

    async def CreateDocument(
        self, request: pb.CreateDocumentRequest, context: Servicing
    ) -> pb.CreateDocumentResponse:
        """See the contract."""
        info = convert.to_info(request.info)
        if request.WhichOneof("content") == "text" and not info.media_type:
            info = convert.with_type(info, MARKDOWN)
        brought = await self._bringing.create(
            principal(),
            info,
            request.data or request.text.encode(),
            request.url,
            Repeatable.of(request, request.idempotency_key),
        )
        document = convert.from_document(brought.document)
        return pb.CreateDocumentResponse(document=document, unchanged=brought.unchanged)

    async def SendDocument(
        self, request_iterator: AsyncIterator[pb.SendDocumentRequest], context: Servicing
    ) -> pb.SendDocumentResponse:
        """See the contract."""
        info = convert.to_info(await info_of(request_iterator))
        brought = await self._bringing.send(principal(), info, pieces_of(request_iterator), None)
        document = convert.from_document(brought.document)
        return pb.SendDocumentResponse(document=document, unchanged=brought.unchanged)

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Servicing
    ) -> pb.ListDocumentsResponse:
        """See the contract."""
        found, token = await self._documents.page(
            principal(),
            request.page_size,
            request.page_token,
            collection=request.collection,
            state=request.state,
            source_id=request.source_id,
            uri=request.uri,
        )
        documents = map(convert.from_document, found)
        return pb.ListDocumentsResponse(documents=documents, next_page_token=token)

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Servicing
    ) -> pb.GetDocumentResponse:
        """See the contract."""
        found = await self._documents.get(principal(), request.document_id)
        return pb.GetDocumentResponse(document=convert.from_document(found))

    async def WatchDocument(
        self, request: pb.WatchDocumentRequest, context: Servicing
    ) -> AsyncIterator[pb.WatchDocumentResponse]:
        """See the contract."""
        async with aclosing(self._documents.watch(principal(), request.document_id)) as states:
            async for document in states:
                yield pb.WatchDocumentResponse(document=convert.from_document(document))

    async def UpdateDocument(
        self, request: pb.UpdateDocumentRequest, context: Servicing
    ) -> pb.UpdateDocumentResponse:
        """See the contract."""
        change = Change(
            title=request.title if request.HasField("title") else None,
            collection=request.collection if request.HasField("collection") else None,
            visibility=convert.to_visibility(request.visibility),
            set_attributes=dict(request.set_attributes),
            remove_attributes=tuple(request.remove_attributes),
            etag=request.etag,
        )
        found = await self._documents.update(principal(), request.document_id, change)
        return pb.UpdateDocumentResponse(document=convert.from_document(found))

    async def ReadDocumentAgain(
        self, request: pb.ReadDocumentAgainRequest, context: Servicing
    ) -> pb.ReadDocumentAgainResponse:
        """See the contract."""
        found = await self._documents.read_again(principal(), request.document_id)
        return pb.ReadDocumentAgainResponse(document=convert.from_document(found))

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Servicing
    ) -> pb.DeleteDocumentResponse:
        """See the contract."""
        await self._documents.delete(principal(), request.document_id)
        return pb.DeleteDocumentResponse()

    async def DownloadDocument(
        self, request: pb.DownloadDocumentRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        document, pieces = await self._documents.content(principal(), request.document_id)
        await context.send_initial_metadata(headers_of(document))
        async with aclosing(pieces):
            async for data in pieces:
                yield HttpBody(content_type=document.media_type, data=data)

    async def ListPassages(
        self, request: pb.ListPassagesRequest, context: Servicing
    ) -> pb.ListPassagesResponse:
        """See the contract."""
        document, found, token = await self._documents.passages(
            principal(),
            request.document_id,
            request.page_size,
            request.page_token,
            request.revision,
        )
        return pb.ListPassagesResponse(
            passages=[convert.from_placed(each, document.revision) for each in found],
            next_page_token=token,
            revision=document.revision,
        )
