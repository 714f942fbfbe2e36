"""HTTP/1.1 to servers of others: aiohttp's connections under httpx's clients.

The openai client speaks httpx, whose own connections cost more than all the rest of a call: they
parse in Python, and cancel by exceptions that can reach who waits for somebody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx2
from yarl import URL

# Less than what servers commonly keep a silent connection for, or a call could meet its end.
_KEPT_SECONDS = 4.0


class HttpTransport(httpx2.AsyncBaseTransport):
    """Connections to anybody, made when first needed."""

    def __init__(self, connections: int, *, by_environment: bool = False) -> None:
        """Prepare.

        Args:
            connections: How many there may be at once.
            by_environment: Whether proxies named in the environment (`HTTPS_PROXY`) are used.
        """
        self._connections = connections
        self._by_environment = by_environment
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=_KEPT_SECONDS,
                ssl=httpx2.create_ssl_context(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                # What one call's server sets is nothing to the next.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                # Where it names none, the environment would be searched for each call.
                trust_env=self._by_environment and bool(getproxies()),
            )
        return self._session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx.

        Raises:
            httpx2.TransportError: The server cannot be reached, or broke the connection.
        """
        bounds = request.extensions.get("timeout", {})
        with _translated():
            response = await self._opened().request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=bounds.get("pool"),
                    sock_connect=bounds.get("connect"),
                    sock_read=bounds.get("read"),
                ),
                server_hostname=request.extensions.get("sni_hostname"),
            )
        return httpx2.Response(
            response.status,
            headers=[(bytes(name), bytes(value)) for name, value in response.raw_headers],
            stream=_Body(response),
            request=request,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class _Body(httpx2.AsyncByteStream):
    """What a server sends, in the pieces in which it is there."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for data in self._response.content.iter_any():
                yield data

    async def aclose(self) -> None:
        """Drop the connection, unless all was read: it then serves the next call already."""
        self._response.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        raise _kind(error)(type(error).__name__) from error


def _kind(error: aiohttp.ClientError) -> Any:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx2.ConnectTimeout
    if isinstance(error, aiohttp.ServerTimeoutError):
        return httpx2.ReadTimeout
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpx2.ConnectError
    if isinstance(error, aiohttp.InvalidURL):
        return httpx2.UnsupportedProtocol
    return httpx2.RemoteProtocolError
