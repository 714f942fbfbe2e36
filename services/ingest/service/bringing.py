"""Documents brought: new ones, ones that replace others, and ones that are there already."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sqlalchemy.exc import IntegrityError

from services.ingest import store
from services.ingest.domain.documents import (
    NOTHING,
    Content,
    Document,
    Info,
    State,
    replaced,
    require_info,
    require_plain,
    space_of,
    title_of,
    too_many,
    waiting,
)
from services.ingest.service.keeping import Keeper
from services.ingest.service.news import News
from services.ingest.settings import IngestSettings
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Conflict, Connection, Database
from services.runtime.egress import Egress
from services.runtime.errors import InvalidRequest, Unavailable
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies

_COLLISIONS = 3


@dataclass(frozen=True, slots=True)
class Brought:
    """A document, and what bringing it has changed."""

    document: Document
    new: bool = False
    changed: bool = False

    @property
    def unchanged(self) -> bool:
        """Whether it was there already, with the same bytes."""
        return not self.new and not self.changed


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document comes from, besides what is said of it.

    Attributes:
        url: The address to fetch it from.
        source_id: The source that brings it.
        parent: What it is attached to.
    """

    url: str = ""
    source_id: str = ""
    parent: Document | None = None


NOWHERE = Origin()
Also = Callable[[Connection, Brought], Awaitable[None]]


class Bringing:
    """Brings documents."""

    def __init__(
        self,
        settings: IngestSettings,
        database: Database,
        keeper: Keeper,
        egress: Egress,
        replies: Replies,
        news: News,
    ) -> None:
        self._settings = settings
        self._database = database
        self._keeper = keeper
        self._egress = egress
        self._replies = replies
        self._news = news

    async def create(
        self, who: Principal, info: Info, data: bytes, url: str, call: Repeatable
    ) -> Brought:
        """Bring bytes, or what is at an address; repeating a key returns the first document.

        Raises:
            InvalidRequest: There is a NUL in what is said, or ADDRESS_REFUSED.
            ResourceExhausted: The tenant has as many as it can have.
            AlreadyExists: The key stands for another request.
        """
        require_info(info)
        if call.key:
            async with self._database.read() as connection:
                first = await self._first(connection, who, call)
            if first is not None:
                return first
        if url:
            await self.judge(url)
            named = replace(info, uri=info.uri or url)
            return await self.take(who, named, NOTHING, Origin(url=url), call=call)
        return await self.send(who, info, _once(data), call)

    async def send(
        self, who: Principal, info: Info, pieces: AsyncIterable[bytes], call: Repeatable | None
    ) -> Brought:
        """Bring bytes as they come.

        Raises:
            InvalidRequest: There is a NUL in what is said, there are no bytes, or too many.
            ResourceExhausted: The tenant has as many as it can have.
        """
        require_info(info)
        kept = await self._keeper.keep(who.tenant_id, pieces, info.media_type, info.file_name)
        return await self.bring(who, info, kept, NOWHERE, call)

    async def bring(
        self,
        who: Principal,
        info: Info,
        content: Content,
        origin: Origin = NOWHERE,
        call: Repeatable | None = None,
        also: Also | None = None,
    ) -> Brought:
        """Make a document of bytes that are kept; where they are not needed they are let go of.

        Args:
            who: Whose it will be.
            info: What is said of it.
            content: Its bytes.
            origin: Where it comes from.
            call: The call that brings it, if it may be repeated.
            also: What else belongs to the transaction.

        Raises:
            ResourceExhausted: The tenant has as many as it can have.
        """
        try:
            brought = await self.take(who, info, content, origin, also, call)
        except BaseException:
            await self._keeper.drop(who.tenant_id, content.heap_id)
            raise
        if brought.document.bytes_heap != content.heap_id:
            await self._keeper.drop(who.tenant_id, content.heap_id)
        return brought

    async def judge(self, url: str) -> None:
        """Refuse an address that is not called.

        Raises:
            InvalidRequest: ADDRESS_REFUSED, or it is no address of the web.
        """
        require_plain("url", url)
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise InvalidRequest.field("url", "must be an http or https address") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidRequest.field("url", "must be an http or https address")
        try:
            await self._egress.address(parts.hostname, port)
        except Unavailable as error:
            raise InvalidRequest(
                error.message, reason="ADDRESS_REFUSED", metadata={"host": parts.hostname[:200]}
            ) from error

    async def take(
        self,
        who: Principal,
        info: Info,
        content: Content,
        origin: Origin,
        also: Also | None = None,
        call: Repeatable | None = None,
    ) -> Brought:
        """As `bring`; whoever calls sees to bytes that are not needed."""
        for attempt in range(_COLLISIONS):
            try:
                async with self._database.transaction((who.tenant_id,)) as connection:
                    first = call and await self._first(connection, who, call)
                    if first:
                        return first
                    brought = await self._stored(connection, who, info, content, origin)
                    if call is not None:
                        reply = brought.document.document_id.encode()
                        await self._replies.keep(connection, call, reply)
                    if also is not None:
                        await also(connection, brought)
            except (IntegrityError, Conflict):
                # Another one with the same uri, or the same key, came in between: look again.
                if attempt == _COLLISIONS - 1:
                    raise
                continue
            if not brought.unchanged:
                await self._news.waiting(brought.document)
            return brought
        raise AssertionError("the last attempt raises")

    async def _first(
        self, connection: Connection, who: Principal, call: Repeatable
    ) -> Brought | None:
        kept = await self._replies.find(connection, call)
        if kept is None:
            return None
        return Brought(await store.documents.get(connection, who, kept.decode()))

    async def _stored(
        self, connection: Connection, who: Principal, info: Info, content: Content, origin: Origin
    ) -> Brought:
        now = clock.now()
        old = await self._old(connection, who, info, content)
        if old is None:
            new = _new(who, info, content, origin, now)
            await self._require_room(connection, new)
            await store.documents.add(connection, new)
            await self._keep_bytes(connection, new)
            return Brought(new, new=True)
        if content.sha256 and content.sha256 == old.sha256:
            return Brought(old)
        if not content.sha256 and old.url == origin.url:
            if not old.ended:
                return Brought(old)
            again = waiting(old, now)
            await store.documents.replace(connection, again)
            return Brought(again, changed=True)
        changed = replaced(old, info, content, origin.url, now)
        await store.documents.replace(connection, changed)
        await store.heaps.doom(connection, who.tenant_id, old.bytes_heap)
        await self._keep_bytes(connection, changed)
        return Brought(changed, changed=True)

    async def _old(
        self, connection: Connection, who: Principal, info: Info, content: Content
    ) -> Document | None:
        if info.uri:
            space = space_of(info.visibility, who.user_id)
            return await store.documents.same_uri(connection, who.tenant_id, space, info.uri)
        return await store.documents.same_bytes(
            connection, who, info.visibility, info.file_name, content.sha256
        )

    async def _keep_bytes(self, connection: Connection, document: Document) -> None:
        if document.bytes_heap and not await store.heaps.keep(
            connection, document.tenant_id, document.bytes_heap
        ):
            # This process was taken for dead, and its bytes with it.
            raise Unavailable("The document's bytes were let go of. Try again.")

    async def _require_room(self, connection: Connection, document: Document) -> None:
        count, size = await store.documents.usage(connection, document.tenant_id)
        most = self._settings.ingest_max_documents
        if count >= most:
            raise too_many("documents", "documents", most)
        if size + document.size > self._settings.ingest_max_bytes:
            raise too_many("bytes of documents", "document_bytes", size)


def _new(who: Principal, info: Info, content: Content, origin: Origin, now: int) -> Document:
    parent = origin.parent
    return Document(
        document_id=new_id("doc"),
        tenant_id=who.tenant_id,
        owner_id=who.user_id,
        source_id=origin.source_id,
        parent_id=parent.document_id if parent else "",
        title=title_of(info, origin.url),
        said_title=info.title,
        file_name=info.file_name,
        media_type=content.media_type,
        said_type=info.media_type,
        size=content.size,
        sha256=content.sha256,
        uri=info.uri,
        collection=info.collection,
        visibility=info.visibility,
        attributes=dict(info.attributes),
        state=State.WAITING,
        failure=None,
        percent=0,
        revision=0,
        passage_count=0,
        page_count=0,
        create_time=now,
        update_time=now,
        url=origin.url,
        bytes_heap=content.heap_id,
        depth=parent.depth + 1 if parent else 0,
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
