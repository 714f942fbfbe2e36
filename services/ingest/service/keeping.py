"""Bytes into the database and out of it, a bounded piece at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

from services.ingest import store
from services.ingest.domain.documents import MAX_BYTES, PART_BYTES, Content
from services.ingest.domain.looks import looks_like
from services.runtime.db import Database
from services.runtime.errors import InvalidRequest

_HEAD = 65_536


class Keeper:
    """Keeps bytes in heaps."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def keep(
        self,
        tenant_id: str,
        pieces: AsyncIterable[bytes],
        media_type: str,
        file_name: str,
        most: int = MAX_BYTES,
    ) -> Content:
        """Keep bytes in a new heap, which is let go of unless something names it.

        Raises:
            InvalidRequest: There are too many, or none.
        """
        async with self._database.transaction((tenant_id,)) as connection:
            heap_id = await store.heaps.begin(connection, tenant_id, self._owner)
        digest = hashlib.sha256()
        head = b""
        size = 0
        try:
            async for data in _even(pieces):
                if size + len(data) > most:
                    raise InvalidRequest(f"A document has at most {most} bytes.")
                await asyncio.to_thread(digest.update, data)
                async with self._database.transaction((tenant_id,)) as connection:
                    await store.heaps.put(connection, tenant_id, heap_id, size, data)
                head = head or data[:_HEAD]
                size += len(data)
            if not size:
                raise InvalidRequest("There are no bytes.")
        except BaseException:
            await asyncio.shield(self.drop(tenant_id, heap_id))
            raise
        return Content(heap_id, size, digest.hexdigest(), looks_like(head, media_type, file_name))

    async def drop(self, tenant_id: str, heap_id: str) -> None:
        """Let go of a heap."""
        async with self._database.transaction((tenant_id,)) as connection:
            await store.heaps.doom(connection, tenant_id, heap_id)

    async def pieces(self, tenant_id: str, heap_id: str, size: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a heap. They end early where it is emptied meanwhile."""
        start = 0
        while start < size:
            async with self._database.read((tenant_id,)) as connection:
                data = await store.heaps.next_part(connection, tenant_id, heap_id, start)
            if not data:
                return
            yield data
            start += len(data)


async def _even(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that a row takes."""
    waiting = bytearray()
    async for data in pieces:
        waiting += data
        while len(waiting) >= PART_BYTES:
            yield bytes(waiting[:PART_BYTES])
            del waiting[:PART_BYTES]
    if waiting:
        yield bytes(waiting)
