"""A gRPC-Web client, small enough to read: unary and server streams, binary and text.

A body is frames: one byte of flags, four of length, then a message, or the trailers where the
flags' highest bit is set. The text mode is the same in base64, padded wherever the server flushed.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import aiohttp
from google.protobuf.message import Message

_TRAILERS = 0x80


@dataclass
class Reply:
    """What came back: the messages' bytes, and the status that the trailers told."""

    messages: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The gRPC status; -1 where the stream ended without one."""
        return int(self.trailers.get("grpc-status", "-1"))

    @property
    def message(self) -> str:
        """The status in words."""
        return unquote(self.trailers.get("grpc-message", ""))


async def frames(chunks: AsyncIterator[bytes], *, text: bool) -> AsyncIterator[tuple[int, bytes]]:
    """The frames of a body as they arrive: flags and content."""
    encoded, buffer = b"", b""
    async for chunk in chunks:
        if text:
            encoded += chunk
            whole = len(encoded) // 4 * 4
            # Padding may stand inside, so four characters are decoded at a time.
            buffer += b"".join(base64.b64decode(encoded[at : at + 4]) for at in range(0, whole, 4))
            encoded = encoded[whole:]
        else:
            buffer += chunk
        while len(buffer) >= 5 and len(buffer) >= 5 + struct.unpack(">I", buffer[1:5])[0]:
            end = 5 + struct.unpack(">I", buffer[1:5])[0]
            yield buffer[0], buffer[5:end]
            buffer = buffer[end:]


async def call(
    session: aiohttp.ClientSession,
    url: str,
    request: Message,
    *,
    text: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One call, unary or server-streaming, read to its end. `url` ends in the RPC's gRPC path."""
    payload = request.SerializeToString()
    body = struct.pack(">BI", 0, len(payload)) + payload
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    sent = {"content-type": kind, "accept": kind, "x-grpc-web": "1", **(headers or {})}
    data = base64.b64encode(body) if text else body
    async with session.post(url, data=data, headers=sent) as response:
        reply = Reply(headers=response.headers)
        # A refusal without a body tells its status in the headers.
        reply.trailers = {k: v for k, v in response.headers.items() if k.startswith("grpc-")}
        async for flags, content in frames(response.content.iter_any(), text=text):
            if not flags & _TRAILERS:
                reply.messages.append(content)
                continue
            for line in content.decode().splitlines():
                name, _, value = line.partition(":")
                reply.trailers[name.strip().lower()] = value.strip()
    return reply
