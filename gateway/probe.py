"""One small HTTP question: to Envoy's admin socket, or to the gateway's health path."""

from __future__ import annotations

import asyncio
from pathlib import Path

# Far above what the admin interface tells about one counter or listener.
_REPLY_BYTES = 1024 * 1024


async def ask(
    method: str,
    target: str,
    *,
    socket: Path | None = None,
    host: str = "",
    port: int = 0,
    patience: float = 2,
) -> tuple[int, str]:
    """The status and the body of the reply.

    Raises:
        OSError: Nobody listens, nobody answers within `patience` seconds, or it is not HTTP.
    """
    # HTTP/1.1, although one question ends the connection: Envoy refuses 1.0.
    question = (
        f"{method} {target} HTTP/1.1\r\nhost: plexus\r\ncontent-length: 0\r\n"
        "connection: close\r\n\r\n"
    )
    async with asyncio.timeout(patience):
        if socket is not None:
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=_REPLY_BYTES)
        else:
            reader, writer = await asyncio.open_connection(host, port, limit=_REPLY_BYTES)
        try:
            writer.write(question.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            body = await _body(reader, head)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise OSError(f"no HTTP reply to {method} {target}") from error
        finally:
            writer.close()
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError(f"no HTTP reply to {method} {target}")
    return int(words[1]), body.decode(errors="replace")


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    """The body that the headers announce. Not up to the end: Envoy leaves it open a second."""
    lines = (line.partition(":") for line in head.splitlines())
    headers = {name.strip(): value.strip() for name, _, value in lines}
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    whole = b""
    while size := int(await reader.readline(), 16):
        whole += (await reader.readexactly(size + 2))[:-2]
        if len(whole) > _REPLY_BYTES:
            raise ValueError("the reply is too long")
    return whole
