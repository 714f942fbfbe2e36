"""Sources: made, changed, removed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

from services.ingest import store
from services.ingest.domain.documents import Visibility, require_plain, too_many
from services.ingest.domain.sources import (
    MAX_SOURCES,
    Folder,
    Mailbox,
    RestList,
    Secrets,
    Source,
    WebAddress,
    Wish,
    require_pointer,
    require_source_etag,
)
from services.ingest.service.bringing import Bringing
from services.ingest.service.news import News
from services.ingest.service.places.folder import Folders
from services.ingest.service.schedules import next_time
from services.runtime import clock, paging
from services.runtime.context import Principal
from services.runtime.crypto import MasterKey
from services.runtime.db import Database
from services.runtime.egress import Egress
from services.runtime.errors import InvalidRequest, Unavailable
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies


class Sources:
    """The sources of every tenant."""

    def __init__(
        self,
        database: Database,
        bringing: Bringing,
        egress: Egress,
        folders: Folders,
        master_key: MasterKey,
        replies: Replies,
        news: News,
    ) -> None:
        self._database = database
        self._bringing = bringing
        self._egress = egress
        self._folders = folders
        self._master_key = master_key
        self._replies = replies
        self._news = news

    async def create(self, who: Principal, wish: Wish, call: Repeatable) -> Source:
        """Make one; repeating a key returns the first.

        Raises:
            InvalidRequest: ADDRESS_REFUSED, a folder that is not allowed, or no schedule.
            ResourceExhausted: The tenant has as many as it can have.
            AlreadyExists: The key stands for another request.
        """
        await self._require_good(wish)
        now = clock.now()
        source_id = new_id("src")
        source = Source(
            source_id=source_id,
            tenant_id=who.tenant_id,
            user_id=who.user_id,
            display_name=wish.display_name,
            place=wish.place,
            sealed=seal(self._master_key, source_id, wish.secrets),
            schedule=wish.schedule,
            paused=wish.paused,
            collection=wish.collection,
            visibility=wish.visibility,
            next_time=next_time(wish.schedule, wish.paused, now),
            last_run=None,
            cursor="",
            create_time=now,
            version=1,
        )
        async with self._database.transaction() as connection:
            kept = await self._replies.find(connection, call)
            if kept is not None:
                return await store.sources.get(connection, who.tenant_id, kept.decode())
            if await store.sources.count(connection, who.tenant_id) >= MAX_SOURCES:
                raise too_many("sources", "sources", MAX_SOURCES)
            await store.sources.add(connection, source)
            await self._replies.keep(connection, call, source_id.encode())
        return source

    async def get(self, who: Principal, source_id: str) -> Source:
        """One.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        async with self._database.read() as connection:
            return await store.sources.get(connection, who.tenant_id, source_id)

    async def page(self, who: Principal, size: int, token: str) -> tuple[list[Source], str]:
        """A page of them, the newest first, and the token of the next.

        Raises:
            InvalidRequest: The token is not one of this list.
        """
        limit = paging.page_size(size)
        before = paging.decode(token, int, str)
        async with self._database.read() as connection:
            found = await store.sources.page(connection, who.tenant_id, before, limit + 1)
        return paging.cut(found, limit, lambda each: (each.create_time, each.source_id))

    async def update(self, who: Principal, source_id: str, wish: Wish, etag: str) -> Source:
        """Make it what it shall be; its kind stays, and what is secret where nothing is said.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Aborted: It changed since the etag was read.
            InvalidRequest: As for `create`; or it would be of another kind, or be sent its secret
                to another place.
        """
        await self._require_good(wish)
        async with self._database.transaction() as connection:
            old = await store.sources.get(connection, who.tenant_id, source_id, lock=True)
            require_source_etag(old, etag)
            new = self._changed(who, old, wish)
            if new != old:
                await store.sources.replace(connection, new)
        return new

    def _changed(self, who: Principal, old: Source, wish: Wish) -> Source:
        if old.user_id != who.user_id and old.visibility != wish.visibility:
            raise InvalidRequest.field("source.visibility", "is for who made the source to say")
        if type(wish.place) is not type(old.place):
            raise InvalidRequest.field("source", "its kind stays as it is")
        sealed = old.sealed
        if wish.secrets != Secrets():
            opened = unseal(self._master_key, old.source_id, old.sealed)
            if opened != wish.secrets:
                sealed = seal(self._master_key, old.source_id, wish.secrets)
        elif (
            old.sealed
            and old.user_id != who.user_id
            and old.visibility == Visibility.OWNER
            and wish.place != old.place
        ):
            # What is one user's alone is not found elsewhere by another with that user's password.
            raise InvalidRequest.field("source", "what is secret must be given with another place")
        elif old.sealed and _where(wish.place) != _where(old.place):
            # Or whoever may change a host could have the password sent to one of theirs.
            raise InvalidRequest.field("source", "what is secret must be given with another host")
        new = replace(
            old,
            display_name=wish.display_name,
            place=wish.place,
            sealed=sealed,
            schedule=wish.schedule,
            paused=wish.paused,
            collection=wish.collection,
            visibility=wish.visibility,
        )
        if new == old:
            return old
        now = clock.now()
        when = next_time(wish.schedule, wish.paused, now)
        same = (old.schedule, old.paused) == (wish.schedule, wish.paused)
        return replace(new, next_time=old.next_time if same else when, version=old.version + 1)

    async def delete(self, who: Principal, source_id: str, *, with_documents: bool) -> None:
        """Remove one; its documents stay, or go by and by.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        async with self._database.transaction() as connection:
            found = await store.sources.get(connection, who.tenant_id, source_id, lock=True)
            await store.sources.remove(connection, found, with_documents=with_documents)
        await self._news.due()

    async def run(self, who: Principal, source_id: str) -> Source:
        """Have one looked at now, unless somebody is looking.

        Raises:
            NotFound: There is none, or it is another tenant's.
        """
        async with self._database.transaction() as connection:
            found = await store.sources.get(connection, who.tenant_id, source_id, lock=True)
            run = found.last_run
            if run is None or run.end_time is not None:
                found = replace(found, asked=True)
                await store.sources.replace(connection, found)
        await self._news.due()
        return found

    async def _require_good(self, wish: Wish) -> None:
        next_time(wish.schedule, wish.paused, clock.now())
        texts = {"display_name": wish.display_name, **asdict(wish.place), **asdict(wish.secrets)}
        for name, text in {**texts, **texts["headers"]}.items():
            if isinstance(text, str):
                require_plain(f"source.{name}", text)
        match wish.place:
            case Mailbox() as box:
                await self._judge(box.host, box.port_or_usual)
            case RestList() as rest:
                for name in ("items", "item_id", "item_title", "item_text", "cursor"):
                    require_pointer(f"source.rest.{name}", getattr(rest, name))
                await self._bringing.judge(rest.url.replace("{cursor}", ""))
                _require_headers(wish.secrets)
            case WebAddress(url=url):
                await self._bringing.judge(url)
            case Folder(path=path):
                await asyncio.to_thread(self._folders.require_allowed, Path(path))

    async def _judge(self, host: str, port: int) -> None:
        try:
            await self._egress.address(host, port)
        except Unavailable as error:
            raise InvalidRequest(
                error.message, reason="ADDRESS_REFUSED", metadata={"host": host[:200]}
            ) from error


def _where(place: object) -> tuple[object, ...]:
    """Where what is secret goes."""
    match place:
        case Mailbox():
            return (place.host, place.port_or_usual, place.starttls)
        case RestList():
            return tuple(urlsplit(place.url)[:2])
    return ()


def _require_headers(secrets: Secrets) -> None:
    for name, value in secrets.headers.items():
        good = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not good or not value.isprintable() or name.lower() in ("host", "content-length"):
            raise InvalidRequest.field("source.rest.headers", f"{name!r} is no header to be sent")


def about(source_id: str) -> str:
    """What a source's secrets are sealed as."""
    return f"ingest/source/{source_id}"


def seal(master_key: MasterKey, source_id: str, secrets: Secrets) -> bytes:
    """Secrets in an envelope; empty for none."""
    if secrets == Secrets():
        return b""
    text = json.dumps({"password": secrets.password, "headers": dict(secrets.headers)})
    return master_key.enclose(text.encode(), about(source_id))


def unseal(master_key: MasterKey, source_id: str, sealed: bytes) -> Secrets:
    """The secrets in an envelope."""
    if not sealed:
        return Secrets()
    return Secrets(**json.loads(master_key.disclose(sealed, about(source_id))))
