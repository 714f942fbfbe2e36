"""HTTP/1.1 by hand: paths, headers and bodies go out as they are, however wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

Headers = Iterable[tuple[str, str]]
_MOST = 32 * 1024 * 1024


class NoReply(Exception):
    """The connection ended before a whole head of a reply had come."""


@dataclass
class Reply:
    """What came back; `whole` is False where reading was ended on purpose."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = True
    head: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str:
        """A header's value, empty where there is none."""
        return next((value for key, value in self.headers if key == name), "")


def request(verb: str, target: str, headers: Headers, body: bytes = b"") -> bytes:
    """The bytes of a request."""
    lines = [f"{verb} {target} HTTP/1.1", "host: plexus"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or verb in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


class Client:
    """Some connections to one server, kept and used again."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._idle: list[_Connection] = []

    async def send(self, data: bytes, *, seconds: float = 20, first: bool = False) -> Reply:
        """Send a whole request and read the reply; with `first`, a stream's first piece alone.

        Raises:
            NoReply: The server closed the connection instead.
            TimeoutError: No whole reply in time.
        """
        async with asyncio.timeout(seconds):
            while self._idle:
                connection = self._idle.pop()
                with contextlib.suppress(NoReply, ConnectionError):
                    return await self._exchange(connection, data, first=first)
                # It was closed while nobody used it.
            try:
                return await self._exchange(await self._connect(), data, first=first)
            except ConnectionError as error:
                raise NoReply("reset") from error

    async def _connect(self) -> _Connection:
        return _Connection(*await asyncio.open_connection(*self._address, limit=_MOST))

    async def _exchange(self, connection: _Connection, data: bytes, *, first: bool) -> Reply:
        kept = False
        try:
            connection.writer.write(data)
            reply = await connection.read(first=first, head_only=data.startswith(b"HEAD "))
            kept = reply.whole and reply.header("connection") != "close" and reply.status != 101
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()
        return reply

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def close(self) -> None:
        self.writer.transport.abort()

    async def read(self, *, first: bool, head_only: bool) -> Reply:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 100"):
                head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise NoReply(error.partial[:200]) from error
        first_line, *rest = head.decode("latin-1").rstrip().split("\r\n")
        pairs = [line.partition(":")[::2] for line in rest]
        headers = [(name.strip().lower(), value.strip()) for name, value in pairs]
        reply = Reply(int(first_line.split(" ")[1]), headers, head=head)
        try:
            await self._body(reply, first=first, none=head_only or reply.status in (204, 304))
        except asyncio.IncompleteReadError as error:
            reply.body += error.partial
            reply.whole = False
        return reply

    async def _body(self, reply: Reply, *, first: bool, none: bool) -> None:
        if none:
            return
        if reply.header("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                reply.body += (await self.reader.readexactly(size + 2))[:-2]
                if first:
                    reply.whole = False
                    return
            await self.reader.readuntil(b"\r\n")
        elif length := reply.header("content-length"):
            reply.body = await self.reader.readexactly(int(length))
        else:
            reply.body = await self.reader.read()
            reply.whole = False
