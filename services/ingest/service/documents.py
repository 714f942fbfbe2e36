"""Documents as they are: found, watched, changed, read again, removed, given back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import IntegrityError

from services.ingest import store
from services.ingest.domain.documents import (
    MAX_ATTRIBUTES,
    Document,
    State,
    Visibility,
    require_etag,
    require_plain,
    uri_taken,
    waiting,
)
from services.ingest.domain.passages import Placed
from services.ingest.service.attachments import forget, with_below
from services.ingest.service.keeping import Keeper
from services.ingest.service.news import News
from services.runtime import clock, paging
from services.runtime.context import Principal
from services.runtime.db import Connection, Database
from services.runtime.errors import Aborted, InvalidRequest, PermissionDenied

_MAX_PAGE_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """What an update sets; None leaves it."""

    title: str | None = None
    collection: str | None = None
    visibility: Visibility | None = None
    set_attributes: Mapping[str, str] = field(default_factory=dict)
    remove_attributes: Sequence[str] = ()
    etag: str = ""


class Documents:
    """The documents of every tenant."""

    def __init__(self, database: Database, keeper: Keeper, news: News) -> None:
        self._database = database
        self._keeper = keeper
        self._news = news

    async def get(self, who: Principal, document_id: str) -> Document:
        """One document.

        Raises:
            NotFound: The caller finds none.
        """
        async with self._database.read((who.tenant_id,)) as connection:
            return await store.documents.get(connection, who, document_id)

    async def page(
        self,
        who: Principal,
        size: int,
        token: str,
        *,
        collection: str,
        state: int,
        source_id: str,
        uri: str,
    ) -> tuple[list[Document], str]:
        """A page of documents, the newest first, and the token of the next.

        Raises:
            InvalidRequest: The token is not one of this list, or there is a NUL in a filter.
        """
        for name, value in (("collection", collection), ("source_id", source_id)):
            require_plain(name, value)
        limit = paging.page_size(size)
        before = paging.decode(token, int, str)
        async with self._database.read((who.tenant_id,)) as connection:
            found = await store.documents.page(
                connection,
                who,
                before,
                limit + 1,
                collection=collection,
                state=state,
                source_id=source_id,
                uri=uri,
            )
        return paging.cut(found, limit, lambda each: (each.create_time, each.document_id))

    async def watch(self, who: Principal, document_id: str) -> AsyncGenerator[Document, None]:
        """A document as it stands, and again when that changes, until it is read or is not.

        Raises:
            NotFound: The caller finds none, or none any more.
        """
        async with self._news.of(document_id) as news:
            last: tuple[object, ...] = ()
            while True:
                found = await self.get(who, document_id)
                now = (found.version, found.state, found.percent)
                if now != last:
                    yield found
                    last = now
                if found.ended:
                    return
                await news.wait(self._news.patience)

    async def update(self, who: Principal, document_id: str, change: Change) -> Document:
        """Change what is said about a document; what is attached to it follows.

        Raises:
            NotFound: The caller finds none.
            Aborted: It changed since the etag was read.
            PermissionDenied: Who finds it is for its owner to say.
            AlreadyExists: NAME_TAKEN: another one has its uri among those who would find it.
            InvalidRequest: It would have too many attributes, or there is a NUL in one.
        """
        _require_storable(change)
        try:
            async with self._database.transaction((who.tenant_id,)) as connection:
                old = await store.documents.get(connection, who, document_id, lock=True)
                require_etag(old, change.etag)
                new = _changed(who, old, change)
                if new == old:
                    return old
                new = replace(new, update_time=clock.now(), version=old.version + 1)
                await self._keep(connection, old, new)
        except IntegrityError:
            raise uri_taken(old.uri) from None
        await self._news.changed(new)
        await self._news.found()
        return new

    async def _keep(self, connection: Connection, old: Document, new: Document) -> None:
        await store.documents.replace(connection, new, reading=True)
        follow = [new]
        if (new.visibility, new.collection) != (old.visibility, old.collection):
            for each in (await with_below(connection, new))[1:]:
                child = replace(
                    each,
                    visibility=new.visibility,
                    collection=new.collection,
                    update_time=new.update_time,
                    version=each.version + 1,
                )
                await store.documents.replace(connection, child, reading=True)
                follow.append(child)
        await store.feed.tell(connection, *follow)

    async def read_again(self, who: Principal, document_id: str) -> Document:
        """Have a document read again.

        Raises:
            NotFound: The caller finds none.
        """
        async with self._database.transaction((who.tenant_id,)) as connection:
            old = await store.documents.get(connection, who, document_id, lock=True)
            if old.state is State.WAITING:
                return old
            new = waiting(old, clock.now())
            await store.documents.replace(connection, new)
        await self._news.waiting(new)
        return new

    async def delete(self, who: Principal, document_id: str) -> None:
        """Remove a document and what is attached to it.

        Raises:
            NotFound: The caller finds none.
        """
        async with self._database.transaction((who.tenant_id,)) as connection:
            found = await store.documents.get(connection, who, document_id, lock=True)
            gone = await with_below(connection, found)
            for each in gone:
                await forget(connection, each)
            await store.feed.tell(connection, *gone)
        for each in gone:
            await self._news.changed(each)
        await self._news.found()

    async def content(
        self, who: Principal, document_id: str
    ) -> tuple[Document, AsyncGenerator[bytes, None]]:
        """A document and its bytes.

        Raises:
            NotFound: The caller finds none.
        """
        found = await self.get(who, document_id)
        return found, self._keeper.pieces(found.tenant_id, found.bytes_heap, found.size)

    async def passages(
        self, who: Principal, document_id: str, size: int, token: str, revision: int
    ) -> tuple[Document, list[Placed], str]:
        """A document, a page of its passages, and the token of the next.

        Raises:
            NotFound: The caller finds no such document.
            Aborted: It has another revision.
            InvalidRequest: The token is not one of this list.
        """
        limit = paging.page_size(size)
        after = paging.decode(token, int, int)
        async with self._database.read((who.tenant_id,)) as connection:
            found = await store.documents.get(connection, who, document_id)
            asked = revision or (after[1] if after else 0)
            if asked and asked != found.revision:
                raise Aborted(
                    "The document was read again since.",
                    metadata={"revision": str(found.revision)},
                )
            sizes = await store.passages.sizes(
                connection, found, after[0] if after else -1, limit + 1
            )
            count = _within(sizes[:limit])
            if not count:
                return found, [], ""
            last = sizes[count - 1][0]
            page = await store.passages.span(connection, found, sizes[0][0], last)
        token = paging.encode((last, found.revision)) if count < len(sizes) else ""
        return found, page, token

    async def passages_by_id(
        self, who: Principal, passage_ids: Sequence[str]
    ) -> tuple[list[Placed], list[Document]]:
        """Passages that the caller finds, in the order asked for, and their documents."""
        async with self._database.read((who.tenant_id,)) as connection:
            found = await store.passages.by_id(connection, who, passage_ids)
            ids = list(dict.fromkeys(each.document_id for each in found))
            documents = await store.documents.get_many(connection, who, ids)
        by_id = {each.passage_id: each for each in found}
        ordered = [by_id[each] for each in dict.fromkeys(passage_ids) if each in by_id]
        return ordered, documents


def _within(sizes: Sequence[tuple[int, int]]) -> int:
    """How many of the first go into a page; at least one."""
    total = 0
    for count, (_, size) in enumerate(sizes):
        total += size
        if total > _MAX_PAGE_BYTES and count:
            return count
    return len(sizes)


def _require_storable(change: Change) -> None:
    require_plain("title", change.title or "")
    for name, value in change.set_attributes.items():
        require_plain(f"set_attributes[{name}]", value)


def _changed(who: Principal, old: Document, change: Change) -> Document:
    if (
        change.visibility is not None
        and change.visibility is not old.visibility
        and old.owner_id != who.user_id
    ):
        raise PermissionDenied("Who finds a document is for its owner to say.")
    attributes = {**old.attributes, **change.set_attributes}
    for name in change.remove_attributes:
        attributes.pop(name, None)
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidRequest.field("set_attributes", f"a document has at most {MAX_ATTRIBUTES}")
    return replace(
        old,
        title=old.title if change.title is None else change.title,
        said_title=old.said_title if change.title is None else change.title,
        collection=old.collection if change.collection is None else change.collection,
        visibility=change.visibility or old.visibility,
        attributes=attributes,
    )
