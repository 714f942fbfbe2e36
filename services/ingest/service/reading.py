"""Reading: documents that wait are claimed, parsed elsewhere, and get their passages at once.

Several processes share the work. Each document has one reader at a time; when that process ends
another one begins anew. Passages are written in steps to a heap that nobody sees, and the document
names it in one short transaction when they are all there.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from services.ingest import store
from services.ingest.domain.documents import (
    Document,
    Reading,
    Reason,
    Unreadable,
    as_before,
    failed,
    ready,
)
from services.ingest.domain.passages import Passage
from services.ingest.leases import Leases
from services.ingest.service.attachments import Attachment, bring_attached
from services.ingest.service.fetching import Fetcher
from services.ingest.service.keeping import Keeper
from services.ingest.service.news import News
from services.ingest.service.parsers import Attached, Done, Found, Parsers, Progress, Task
from services.runtime import clock, log
from services.runtime.db import EVERYONE, Database
from services.runtime.errors import InvalidRequest, PlexusError
from services.runtime.ids import new_id
from services.runtime.leases import RENEW_SECONDS
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
_MAX_ATTEMPTS = 3
_TOLD_SECONDS = 1.0
_WRITTEN_TOGETHER = 100
_UNKEPT = "It holds what cannot be kept."
_BROKE = "Reading it ended the process that read it, more than once."


class _Vain(Exception):
    """The document is another one by now, or another process reads it."""


@dataclass
class _Work:
    """A document that is being read."""

    document: Document
    heap_id: str = ""
    count: int = 0
    waiting: list[Passage] = field(default_factory=list)
    attached: list[Attachment] = field(default_factory=list)
    told: float = 0.0
    done: Done | None = None


class Reader:
    """The reader of this process."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        fetcher: Fetcher,
        parsers: Parsers,
        leases: Leases,
        news: News,
        tasks: Tasks,
        folder: Path,
        at_once: int,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._fetcher = fetcher
        self._parsers = parsers
        self._leases = leases
        self._news = news
        self._tasks = tasks
        self._folder = folder
        self._free = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._carried: set[str] = set()

    async def keep_lease(self) -> None:
        """Renew the lease, and set free what those read who ended."""
        while True:
            await self._leases.renew()
            await self._leases.bury_silent()
            await self._release()
            await self._release_sources()
            await asyncio.sleep(RENEW_SECONDS)

    async def _release(self) -> None:
        carried = list(self._carried)
        async with self._database.read(EVERYONE) as connection:
            lost = await store.documents.lost_there(connection, self._leases.owner, carried)
        if not lost:
            return
        async with self._database.transaction(EVERYONE) as connection:
            # What was claimed since then is carried, too.
            free = await store.documents.release(
                connection, self._leases.owner, list(self._carried)
            )
        for document in free:
            _logger.info("reading_again", document=document.document_id)
            await self._news.waiting(document)

    async def _release_sources(self) -> None:
        async with self._database.read(EVERYONE) as connection:
            if not await store.sources.lost_there(connection):
                return
        async with self._database.transaction(EVERYONE) as connection:
            await store.sources.release(connection)
        await self._news.due()

    async def run(self) -> None:
        """Read what waits, until cancelled."""
        async with self._news.of_waiting() as news:
            while True:
                async with self._free:
                    pass
                if not await self._begin():
                    await news.wait(self._news.patience)

    async def _begin(self) -> bool:
        """Begin to read some; False where none waits."""
        async with self._database.read(EVERYONE) as connection:
            if not await store.documents.wait_there(connection):
                return False
        room = self._at_once - len(self._carried)
        async with self._database.transaction(EVERYONE) as connection:
            taken = await store.documents.claim(connection, self._leases.owner, max(1, room))
            self._carried.update(each.document_id for each in taken)
        for document in taken:
            await self._free.acquire()
            self._tasks.start(f"read {document.document_id}", self._carry(document))
        return bool(taken)

    async def _carry(self, document: Document) -> None:
        try:
            await self._news.changed(document)
            if document.attempts > _MAX_ATTEMPTS:
                await self._fail(document, Reason.BROKEN, _BROKE)
            else:
                await self._read(document)
        except _Vain:
            _logger.info("read_in_vain", document=document.document_id)
        except (PlexusError, OSError) as error:
            # Whatever it lacks: it waits again as soon as this process looks for what it lost.
            _logger.warning("reading_let_go", document=document.document_id, error=repr(error))
        finally:
            self._carried.discard(document.document_id)
            self._free.release()

    async def _read(self, document: Document) -> None:
        try:
            document = await self._fetched(document)
            if document.url and document.sha256 == document.read_sha256:
                await self._end(document, lambda found: as_before(found, clock.now()))
                return
            await self._parse(document)
        except Unreadable as error:
            await self._fail(document, error.reason, error.message)
        except (InvalidRequest, ValueError, SQLAlchemyError) as error:
            # It holds what cannot be kept: reading it again would end the same.
            _logger.error("document_refused", document=document.document_id, error=repr(error))
            await self._fail(document, Reason.BROKEN, _UNKEPT)

    async def _fetched(self, document: Document) -> Document:
        """The document with the bytes that its address has now."""
        if not document.url:
            return document
        got = await self._fetcher.fetch(document)
        if got is None:
            return document
        async with self._database.transaction((document.tenant_id,)) as connection:
            found = await store.documents.still_read(connection, document, self._leases.owner)
            if found is None:
                await store.heaps.doom(connection, document.tenant_id, got.content.heap_id)
                raise _Vain
            changed = got.of(found)
            await store.documents.replace(connection, changed)
            await store.heaps.doom(connection, document.tenant_id, found.bytes_heap)
            await store.heaps.keep(connection, document.tenant_id, changed.bytes_heap)
        return changed

    async def _parse(self, document: Document) -> None:
        folder = self._folder / new_id("tmp")
        work = _Work(document)
        try:
            await asyncio.to_thread(folder.mkdir, parents=True)
            async with self._database.transaction((document.tenant_id,)) as connection:
                work.heap_id = await store.heaps.begin(
                    connection, document.tenant_id, self._leases.owner
                )
            path = await self._file(document, folder)
            task = Task(path, document.size, document.file_name, document.said_type, document.depth)
            await self._parsers.read(task, partial(self._take, work))
            await self._write(work)
            await self._finish(work)
        except BaseException:
            await asyncio.shield(self._undo(work))
            raise
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    async def _file(self, document: Document, folder: Path) -> Path:
        path = folder / "document"
        size = 0
        with path.open("wb") as file:
            async for data in self._keeper.pieces(
                document.tenant_id, document.bytes_heap, document.size
            ):
                size += await asyncio.to_thread(file.write, data)
        if size != document.size:
            raise _Vain
        return path

    async def _take(self, work: _Work, found: Found) -> None:
        match found:
            case Progress():
                await self._tell(work, found.percent)
            case Attached():
                work.attached.append(await self._keep_attached(work, found))
            case Done():
                work.done = found
            case _:
                work.waiting += found
                if len(work.waiting) >= _WRITTEN_TOGETHER:
                    await self._write(work)

    async def _write(self, work: _Work) -> None:
        some, work.waiting = work.waiting, []
        if some:
            async with self._database.transaction((work.document.tenant_id,)) as connection:
                await store.passages.add(connection, work.document, work.heap_id, work.count, some)
            work.count += len(some)

    async def _tell(self, work: _Work, percent: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - work.told < _TOLD_SECONDS:
            return
        work.told = now
        async with self._database.transaction((work.document.tenant_id,)) as connection:
            if not await store.documents.tell_percent(
                connection, work.document, self._leases.owner, percent
            ):
                raise _Vain
        await self._news.changed(work.document)

    async def _keep_attached(self, work: _Work, found: Attached) -> Attachment:
        content = await self._keeper.keep(
            work.document.tenant_id, _read_file(found.path), found.media_type, found.file_name
        )
        await asyncio.to_thread(found.path.unlink)
        return Attachment(content, found.file_name, found.media_type)

    async def _finish(self, work: _Work) -> None:
        """Give the document its passages and what is attached to it, in one transaction."""
        document, done = work.document, work.done
        assert done is not None
        read = Reading(done.title, done.media_type, done.page_count, work.count, work.heap_id)
        async with self._database.transaction((document.tenant_id,)) as connection:
            found = await store.documents.still_read(connection, document, self._leases.owner)
            if found is None or not await store.heaps.keep(
                connection, document.tenant_id, work.heap_id
            ):
                raise _Vain
            now = ready(found, read, clock.now())
            await store.documents.replace(connection, now)
            await store.heaps.doom(connection, document.tenant_id, found.passages_heap)
            new, gone = await bring_attached(connection, now, work.attached)
            await store.feed.tell(connection, *gone, now)
        for each in new:
            await self._news.waiting(each)
        await self._news.changed(now)
        await self._news.found()

    async def _undo(self, work: _Work) -> None:
        heaps = [work.heap_id, *(each.content.heap_id for each in work.attached)]
        async with self._database.transaction((work.document.tenant_id,)) as connection:
            await store.heaps.doom(connection, work.document.tenant_id, *heaps)

    async def _fail(self, document: Document, reason: Reason, message: str) -> None:
        _logger.info("document_failed", document=document.document_id, reason=reason.name)
        await self._end(document, lambda found: failed(found, reason, message, clock.now()))

    async def _end(self, document: Document, how: Callable[[Document], Document]) -> None:
        async with self._database.transaction((document.tenant_id,)) as connection:
            found = await store.documents.still_read(connection, document, self._leases.owner)
            if found is None:
                raise _Vain
            await store.documents.replace(connection, how(found))
        await self._news.changed(document)


async def _read_file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1_048_576):
            yield data
