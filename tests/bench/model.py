"""A scripted model in a process of its own: OpenAI's streaming protocol, all tokens at once.

`python -m tests.bench.model <port> <tokens>`. Every answer is the same bytes, made once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

from services import launch

WORD = "token "


def answer(tokens: int) -> bytes:
    """A whole response, head included."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    deltas = [{"index": 0, "delta": {"content": WORD}}] * tokens
    ends = {"index": 0, "delta": {}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5}
    chunks = [{**base, "choices": [choice]} for choice in (*deltas, ends)]
    chunks.append({**base, "choices": [], "usage": usage})
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
    body = "".join(f"{len(event):x}\r\n{event}\r\n" for event in events) + "0\r\n\r\n"
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return (head + body).encode()


class Model(asyncio.Protocol):
    """One connection: an answer for each request whose body is there."""

    def __init__(self, whole: bytes) -> None:
        self._whole = whole
        self._buffer = b""

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
        if len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0]):
            self._buffer = b""
            self._transport.write(self._whole)


async def _serve(port: int, tokens: int) -> None:
    whole = answer(tokens)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Model(whole), "127.0.0.1", port)
    launch.say("ready")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
