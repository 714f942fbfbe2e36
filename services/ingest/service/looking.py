"""Looking at sources when their time has come: by one process each, at most some at one time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from services.ingest import store
from services.ingest.domain.documents import Document, Info, State
from services.ingest.domain.sources import (
    Folder,
    Mailbox,
    RestList,
    Source,
    SourceRun,
    WebAddress,
)
from services.ingest.leases import Leases
from services.ingest.service.attachments import forget, with_below
from services.ingest.service.bringing import Bringing, Brought, Origin
from services.ingest.service.documents import Documents
from services.ingest.service.fetching import Fetcher
from services.ingest.service.keeping import Keeper
from services.ingest.service.news import News
from services.ingest.service.places import rest
from services.ingest.service.places.folder import Folders
from services.ingest.service.places.mailbox import Mailboxes
from services.ingest.service.places.things import Cursor, LookFailed, Seen, Thing
from services.ingest.service.schedules import next_time
from services.ingest.service.sources import unseal
from services.runtime import clock, log
from services.runtime.context import Principal, acting_as, mesh_principal
from services.runtime.crypto import MasterKey
from services.runtime.db import EVERYONE, Connection, Database
from services.runtime.errors import InvalidRequest, PlexusError
from services.runtime.tasks import Tasks

_logger = log.get(__name__)
_AT_ONCE = 4
_RUN_SECONDS = 1800.0
# How often letting go is tried while the database is away, and how long between.
_AGAIN_SECONDS = (0.5, 2.0, 10.0, 30.0)
_TOLD_SECONDS = 2.0
_REMOVED_AT_ONCE = 50


class _Gone(Exception):
    """The source is gone, or another process looks at it."""


class _Look:
    """One look, and how it goes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.run = SourceRun(clock.now())
        self.cursor = source.cursor
        self.told = 0.0

    @property
    def who(self) -> Principal:
        """Whose its documents are."""
        return mesh_principal(self.source.tenant_id, self.source.user_id)

    def count(self, brought: Brought) -> None:
        """Count what became of a thing."""
        run = self.run
        self.run = replace(
            run,
            added=run.added + brought.new,
            changed=run.changed + brought.changed,
            unchanged=run.unchanged + brought.unchanged,
        )


class Looker:
    """Looks at sources."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        bringing: Bringing,
        documents: Documents,
        fetcher: Fetcher,
        mailboxes: Mailboxes,
        folders: Folders,
        leases: Leases,
        master_key: MasterKey,
        news: News,
        tasks: Tasks,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._bringing = bringing
        self._documents = documents
        self._fetcher = fetcher
        self._mailboxes = mailboxes
        self._folders = folders
        self._leases = leases
        self._master_key = master_key
        self._news = news
        self._tasks = tasks
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Look at those whose time has come, until cancelled."""
        async with self._news.of_due() as news:
            while True:
                await self._free.acquire()
                try:
                    source = await self._next()
                except BaseException:
                    self._free.release()
                    raise
                if source is None:
                    self._free.release()
                    await news.wait(self._news.patience)
                else:
                    self._tasks.start(f"look {source.source_id}", self._carry(source))

    async def _next(self) -> Source | None:
        async with self._database.read(EVERYONE) as connection:
            if not await store.sources.due_there(connection, clock.now()):
                return None
        await self._remove_some()
        async with self._database.transaction(EVERYONE) as connection:
            return await store.sources.claim(connection, self._leases.owner, clock.now())

    async def _carry(self, source: Source) -> None:
        look = _Look(source)
        try:
            with acting_as(look.who):
                await self._look(look)
        except _Gone:
            _logger.info("source_gone", source=source.source_id)
        except PlexusError as error:
            # The database is away for long: it is let go of with the lease.
            _logger.warning("look_let_go", source=source.source_id, error=repr(error))
        finally:
            self._free.release()

    async def _look(self, look: _Look) -> None:
        failure = ""
        try:
            await self._tell(look)
            async with asyncio.timeout(_RUN_SECONDS):
                await self._all(look)
        except TimeoutError:
            failure = "It took too long; the next look goes on from here."
        except LookFailed as error:
            failure = str(error)
        except _Gone:
            raise
        except PlexusError as error:
            failure = error.message
        except Exception as error:  # noqa: BLE001 - whatever it is, the source must be let go of
            _logger.error("look_failed", source=look.source.source_id, error=repr(error))
            failure = "It could not be looked at."
        look.run = replace(look.run, end_time=clock.now(), failure=failure[:500])
        _logger.info("looked", source=look.source.source_id, failure=failure)
        source = look.source
        when = next_time(source.schedule, source.paused, clock.now())
        for seconds in (*_AGAIN_SECONDS, None):
            try:
                await self._let_go(look, when)
                return
            except PlexusError:
                if seconds is None:
                    raise
                await asyncio.sleep(seconds)

    async def _let_go(self, look: _Look, when: int | None) -> None:
        async with self._database.transaction() as connection:
            await store.sources.tell_run(
                connection, look.source, self._leases.owner, look.run, look.cursor
            )
            await store.sources.let_go(connection, look.source, self._leases.owner, when)

    async def _all(self, look: _Look) -> None:
        place = look.source.place
        if isinstance(place, WebAddress):
            await self._page(look, place)
            return
        async with aclosing(self._seen(look)) as things:  # type: ignore[type-var]
            async for each in things:
                if isinstance(each, Cursor):
                    look.cursor = each.text
                else:
                    await self._thing(look, each)
                now = asyncio.get_running_loop().time()
                if now - look.told > _TOLD_SECONDS:
                    look.told = now
                    await self._tell(look)
        if isinstance(place, Folder) and place.remove_missing:
            await self._remove_missing(look)

    def _seen(self, look: _Look) -> AsyncIterator[Seen]:
        source = look.source
        secrets = unseal(self._master_key, source.source_id, source.sealed)
        match source.place:
            case Mailbox() as box:
                return self._mailboxes.look(box, secrets.password, source.cursor)
            case RestList() as place:
                return rest.look(self._fetcher, place, secrets.headers, source.cursor)
            case Folder() as folder:
                return self._folders.look(folder)
        raise AssertionError("a page is no list")

    async def _tell(self, look: _Look) -> None:
        async with self._database.transaction() as connection:
            if not await store.sources.tell_run(
                connection, look.source, self._leases.owner, look.run, look.cursor
            ):
                raise _Gone

    async def _thing(self, look: _Look, thing: Thing) -> None:
        source, when = look.source, look.run.start_time
        async with self._database.read() as connection:
            mark = await store.sources.mark_of(connection, source, thing.key)
        if mark == thing.mark:
            if isinstance(source.place, Folder):
                async with self._database.transaction() as connection:
                    await store.sources.saw(connection, source, thing.key, when)
            look.run = replace(look.run, unchanged=look.run.unchanged + 1)
            return
        info = self._info(source, thing)
        try:
            content = await self._keeper.keep(
                source.tenant_id, thing.pieces(), thing.media_type, thing.file_name
            )
        except InvalidRequest:
            # It is empty, or larger than any document: there is nothing to be brought.
            look.run = replace(look.run, unchanged=look.run.unchanged + 1)
            return

        async def also(connection: Connection, brought: Brought) -> None:
            document_id = brought.document.document_id
            await store.sources.brought(
                connection, source, thing.key, thing.mark, document_id, when
            )

        origin = Origin(source_id=source.source_id)
        look.count(await self._bringing.bring(look.who, info, content, origin, also=also))

    def _info(self, source: Source, thing: Thing) -> Info:
        return Info(
            title=thing.title,
            file_name=thing.file_name,
            media_type=thing.media_type,
            uri=thing.uri,
            collection=source.collection,
            visibility=source.visibility,
        )

    async def _page(self, look: _Look, place: WebAddress) -> None:
        """Have the page fetched and read by whoever reads documents, and see what became of it."""
        source = look.source
        info = Info(uri=place.url, collection=source.collection, visibility=source.visibility)
        origin = Origin(url=place.url, source_id=source.source_id)
        before = await self._bringing.from_address(look.who, info, origin)
        found: Document | None = None
        async for state in self._documents.watch(look.who, before.document.document_id):
            found = state
        if found is None or found.state is State.FAILED:
            raise LookFailed(found.failure.message if found and found.failure else "It is gone.")
        changed = found.revision > before.document.revision and not before.new
        look.count(Brought(found, new=before.new, changed=changed))

    async def _remove_missing(self, look: _Look) -> None:
        while True:
            async with self._database.transaction() as connection:
                ids = await store.sources.missing(
                    connection, look.source, look.run.start_time, _REMOVED_AT_ONCE
                )
                found = await store.documents.get_many(connection, look.who, ids)
                await _forget(connection, found)
            look.run = replace(look.run, removed=look.run.removed + len(found))
            if len(ids) < _REMOVED_AT_ONCE:
                break
        await self._news.found()

    async def _remove_some(self) -> None:
        """Forget sources that were removed, some steps at a time."""
        more = True
        while more:
            async with self._database.transaction(EVERYONE) as connection:
                found = await store.sources.to_remove(connection)
                if found is None:
                    return
                source, with_documents = found
                some: list[Document] = []
                if with_documents:
                    some = await store.documents.of_source(
                        connection, source.tenant_id, source.source_id, _REMOVED_AT_ONCE
                    )
                    await _forget(connection, some)
                more = bool(some) or await store.sources.forget(connection, source)
            await self._news.found()


async def _forget(connection: Connection, some: list[Document]) -> None:
    gone = [below for each in some for below in await with_below(connection, each)]
    for each in gone:
        await forget(connection, each)
    await store.feed.tell(connection, *gone)
