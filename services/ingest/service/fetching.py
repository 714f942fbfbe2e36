"""Fetching documents from their addresses, within bounds and past the guard of egress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from services.ingest.domain.documents import Content, Document, Reason, Unreadable
from services.ingest.service.keeping import Keeper
from services.ingest.settings import IngestSettings
from services.runtime.egress import Egress, GuardedTransport
from services.runtime.errors import InvalidRequest, Unavailable
from services.runtime.outgoing import HttpTransport

_CONNECTIONS = 32
_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 30.0
_MOVED = {301, 302, 303, 307, 308}
_OK = 200
_NOT_MODIFIED = 304
_OWN = {"user-agent": "plexus-ingest", "accept-encoding": "identity"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Got:
    """What an address has."""

    content: Content
    said_type: str
    http_etag: str
    http_modified: str
    file_name: str

    def of(self, document: Document) -> Document:
        """The document with it."""
        return replace(
            document,
            file_name=document.file_name or self.file_name,
            media_type=self.content.media_type,
            said_type=self.said_type,
            size=self.content.size,
            sha256=self.content.sha256,
            bytes_heap=self.content.heap_id,
            http_etag=self.http_etag,
            http_modified=self.http_modified,
        )


class Fetcher:
    """Fetches documents."""

    def __init__(self, settings: IngestSettings, egress: Egress, keeper: Keeper) -> None:
        self._settings = settings
        self._keeper = keeper
        transport = GuardedTransport(egress, HttpTransport(_CONNECTIONS))
        self._client = httpx2.AsyncClient(
            transport=transport,
            follow_redirects=False,
            # It serves all tenants: what one is given is nothing to another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, document: Document) -> Got | None:
        """What a document's address has; None where it is what was fetched before.

        Raises:
            Unreadable: The address does not answer, answers with something else, or is not called.
        """
        headers = {}
        if document.bytes_heap and document.http_etag:
            headers["if-none-match"] = document.http_etag
        if document.bytes_heap and document.http_modified:
            headers["if-modified-since"] = document.http_modified
        async with self.opened(document.url, headers) as response:
            if response.status_code == _NOT_MODIFIED and document.bytes_heap:
                return None
            if response.status_code != _OK:
                raise Unreadable(
                    Reason.UNREACHABLE, f"Its address answers with {response.status_code}."
                )
            said = response.headers.get("content-type", "")[:100].replace("\0", "")
            name = _name(document.url)
            content = await self._kept(document, response, said, document.file_name or name)
            return Got(
                content,
                said,
                response.headers.get("etag", "")[:500],
                response.headers.get("last-modified", "")[:100],
                name,
            )

    async def _kept(
        self, document: Document, response: httpx2.Response, said: str, name: str
    ) -> Content:
        most = self._settings.ingest_fetch_bytes
        try:
            return await self._keeper.keep(
                document.tenant_id, bounded(response, most), said, name, most
            )
        except InvalidRequest as error:
            raise Unreadable(Reason.UNREACHABLE, "Its address has no bytes.") from error

    @asynccontextmanager
    async def opened(self, url: str, headers: dict[str, str]) -> AsyncIterator[httpx2.Response]:
        """A response whose body is yet to be read, at the end of at most five redirects.

        Raises:
            Unreadable: The address does not answer in time, or is not called.
        """
        try:
            async with asyncio.timeout(self._settings.ingest_fetch_seconds):
                response = await self._followed(url, headers)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError:
            raise Unreadable(Reason.UNREACHABLE, "Its address takes too long.") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Unreadable(
                Reason.UNREACHABLE, f"Its address does not answer ({type(error).__name__})."
            ) from error

    async def _followed(self, url: str, headers: dict[str, str]) -> httpx2.Response:
        own = {**_OWN, **headers}
        for _ in range(_REDIRECTS + 1):
            try:
                request = self._client.build_request("GET", url, headers=own)
                if request.url.scheme not in ("http", "https") or request.url.userinfo:
                    raise Unreadable(Reason.ADDRESS_REFUSED, "Its address is none of the web.")
                response = await self._client.send(request, stream=True)
            except InvalidRequest as error:
                raise Unreadable(Reason.ADDRESS_REFUSED, error.message) from error
            except Unavailable as error:
                raise Unreadable(Reason.UNREACHABLE, error.message) from error
            except (httpx2.InvalidURL, ValueError) as error:
                raise Unreadable(Reason.UNREACHABLE, "Its address is none.") from error
            if response.status_code not in _MOVED or "location" not in response.headers:
                if response.headers.get("content-encoding", "identity") != "identity":
                    # Unfolding takes as long as its sender likes, and no bound sees it.
                    await response.aclose()
                    raise Unreadable(Reason.UNREACHABLE, "Its address answers in a code.")
                return response
            await response.aclose()
            try:
                target = httpx2.URL(url).join(response.headers["location"])
            except (httpx2.InvalidURL, ValueError) as error:
                raise Unreadable(Reason.UNREACHABLE, "Its address leads nowhere.") from error
            if _origin(target) != _origin(httpx2.URL(url)):
                # What another server shall know, it is told by whoever calls it.
                own = _OWN
            url = str(target)
        raise Unreadable(Reason.UNREACHABLE, "Its address leads from one to the next.")


async def bounded(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    """A body as it comes.

    Raises:
        Unreadable: It is too large.
    """
    size = 0
    async for data in response.aiter_bytes(65_536):
        size += len(data)
        if size > most:
            raise Unreadable(Reason.TOO_LARGE, f"Its address has more than {most} bytes.")
        yield data


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    """Which server an address is of."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _name(url: str) -> str:
    """The file's name in an address, if it has one."""
    last = httpx2.URL(url).path.rpartition("/")[2].replace("\0", "")
    return last[:255] if "." in last else ""
