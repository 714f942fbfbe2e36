"""A scripted model in a process of its own: OpenAI's protocol, all tokens at once or at a pace.

`python -m tests.bench.model <port> <tokens> [<tokens a second>]`. Every answer is the same bytes,
made once; who does not ask for a stream gets one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

from services import launch

WORD = "token "


def whole(tokens: int) -> bytes:
    """A whole response without a stream, head included."""
    message = {"role": "assistant", "content": WORD * tokens}
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "bench"}
    body = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
    lines = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\n" + lines.encode() + body


def answer(tokens: int) -> list[bytes]:
    """The pieces of a stream: its head, then an event each, then its end."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    deltas = [{"index": 0, "delta": {"content": WORD}}] * tokens
    ends = {"index": 0, "delta": {}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5}
    chunks = [{**base, "choices": [choice]} for choice in (*deltas, ends)]
    chunks.append({**base, "choices": [], "usage": usage})
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
    pieces = [f"{len(event):x}\r\n{event}\r\n" for event in events]
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return [each.encode() for each in (head, *pieces, "0\r\n\r\n")]


class Model(asyncio.Protocol):
    """One connection: an answer for each request whose body is there."""

    def __init__(self, tokens: int, pace: float) -> None:
        self._whole = whole(tokens)
        self._pieces = answer(tokens)
        self._stream = b"".join(self._pieces)
        self._pause = 1 / pace if pace else 0.0
        self._buffer = b""
        self._left: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        at = head.lower().find(b"content-length:")
        if at < 0:  # somebody looks which models there are
            self._buffer = b""
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        elif len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0]):
            self._buffer = b""
            if b'"stream": true' not in body and b'"stream":true' not in body:
                self._transport.write(self._whole)
            elif self._pause:
                self._left = self._pieces[::-1]
                self._next()
            else:
                self._transport.write(self._stream)

    def _next(self) -> None:
        if self._left and not self._transport.is_closing():
            self._transport.write(self._left.pop())
            asyncio.get_running_loop().call_later(self._pause, self._next)


async def _serve(port: int, tokens: int, pace: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Model(tokens, pace), "127.0.0.1", port)
    launch.say("ready")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float("".join(sys.argv[3:4]) or 0)))
