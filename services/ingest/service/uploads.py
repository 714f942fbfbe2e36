"""Uploads: a document part by part, which survives whatever happens in between."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from services.ingest import store
from services.ingest.domain.documents import (
    PART_BYTES,
    Content,
    Info,
    require_info,
    too_many,
)
from services.ingest.domain.looks import looks_like
from services.ingest.domain.uploads import Upload, fits, incomplete
from services.ingest.service.bringing import NOWHERE, Bringing, Brought
from services.ingest.service.keeping import Keeper
from services.ingest.settings import IngestSettings
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Connection, Database
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies

_MAX_UPLOADS = 1_000
_HOUR = 3600 * clock.SECOND
_HEAD = 65_536


class Uploads:
    """The uploads of every tenant."""

    def __init__(
        self,
        settings: IngestSettings,
        database: Database,
        keeper: Keeper,
        bringing: Bringing,
        replies: Replies,
    ) -> None:
        self._settings = settings
        self._database = database
        self._keeper = keeper
        self._bringing = bringing
        self._replies = replies

    async def create(
        self, who: Principal, info: Info, size: int, sha256: str, call: Repeatable
    ) -> Upload:
        """Begin one; repeating a key returns the first.

        Raises:
            InvalidRequest: There is a NUL in what is said.
            ResourceExhausted: The tenant has too many under way, or no room for as many bytes.
            AlreadyExists: The key stands for another request.
        """
        require_info(info)
        async with self._database.transaction() as connection:
            kept = await self._replies.find(connection, call)
            if kept is not None:
                return await store.uploads.get(connection, who, kept.decode())
            if await store.uploads.count(connection, who.tenant_id) >= _MAX_UPLOADS:
                raise too_many("uploads", "uploads", _MAX_UPLOADS)
            heap_id = await store.heaps.begin(connection, who.tenant_id, "")
            await store.heaps.keep(connection, who.tenant_id, heap_id)
            upload = Upload(
                upload_id=new_id("upl"),
                tenant_id=who.tenant_id,
                user_id=who.user_id,
                info=info,
                size=size,
                sha256=sha256,
                received=0,
                heap_id=heap_id,
                document_id="",
                expire_time=self._expire_time(),
            )
            await store.uploads.add(connection, upload)
            await self._replies.keep(connection, call, upload.upload_id.encode())
        return upload

    async def write(self, who: Principal, upload_id: str, start: int, data: bytes) -> Upload:
        """Keep the next part; one that is there already is acknowledged again.

        Raises:
            NotFound: The caller has no such upload.
            Aborted: The part begins elsewhere than the next.
            InvalidRequest: It passes the upload's size, or is empty or too large.
        """
        async with self._database.transaction() as connection:
            upload = await store.uploads.get(connection, who, upload_id, lock=True)
            if not fits(upload, start, len(data)):
                return upload
            for at in range(0, len(data), PART_BYTES):
                piece = data[at : at + PART_BYTES]
                await store.heaps.put(connection, who.tenant_id, upload.heap_id, start + at, piece)
            upload = replace(upload, received=start + len(data), expire_time=self._expire_time())
            await store.uploads.change(connection, upload)
        return upload

    async def get(self, who: Principal, upload_id: str) -> Upload:
        """How far one is.

        Raises:
            NotFound: The caller has no such upload.
        """
        async with self._database.read() as connection:
            return await store.uploads.get(connection, who, upload_id)

    async def complete(self, who: Principal, upload_id: str) -> Brought:
        """Make a document of it; repeating that returns the same document.

        Raises:
            NotFound: The caller has no such upload, or its document is gone.
            FailedPrecondition: Parts are missing, or they are other bytes than was said.
            ResourceExhausted: The tenant has as many documents as it can have.
        """
        upload = await self.get(who, upload_id)
        if not upload.document_id:
            content = await self._content(upload)

            async def also(connection: Connection, brought: Brought) -> None:
                found = await store.uploads.get(connection, who, upload_id, lock=True)
                document_id = brought.document.document_id
                await store.uploads.change(connection, replace(found, document_id=document_id))

            brought = await self._bringing.take(who, upload.info, content, NOWHERE, also)
            if brought.document.bytes_heap != content.heap_id:
                await self._keeper.drop(who.tenant_id, content.heap_id)
            return brought
        async with self._database.read() as connection:
            return Brought(await store.documents.get(connection, who, upload.document_id), new=True)

    async def _content(self, upload: Upload) -> Content:
        if upload.received < upload.size:
            raise incomplete(f"{upload.size - upload.received} bytes are missing.", upload.received)
        digest, head = hashlib.sha256(), b""
        async for data in self._keeper.pieces(upload.tenant_id, upload.heap_id, upload.size):
            head = head or data[:_HEAD]
            await asyncio.to_thread(digest.update, data)
        sha256 = digest.hexdigest()
        if upload.sha256 and upload.sha256 != sha256:
            raise incomplete("The bytes are not those of sha256.", upload.received)
        looks = looks_like(head, upload.info.media_type, upload.info.file_name)
        return Content(upload.heap_id, upload.size, sha256, looks)

    async def delete(self, who: Principal, upload_id: str) -> None:
        """Let go of one, and of what was written.

        Raises:
            NotFound: The caller has no such upload.
        """
        async with self._database.transaction() as connection:
            upload = await store.uploads.get(connection, who, upload_id, lock=True)
            await store.uploads.remove(connection, upload)

    def _expire_time(self) -> int:
        return clock.now() + int(self._settings.ingest_upload_hours * _HOUR)
