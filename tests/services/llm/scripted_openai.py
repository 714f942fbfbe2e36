"""A server that speaks OpenAI's chat-completions protocol from scripts.

It stands for the servers that `PLEXUS_LLM_URL` may name: OpenAI's own, vLLM, Ollama, llama.cpp and
the proxies before them, with everything they do on a bad day. It is a real HTTP server on a free
port of the loopback interface, so whatever a client does to a socket is seen here. No test of this
repository calls a model of somebody else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

TOKENS = ("Hello", ", ", "world", ".")
Usage = tuple[int, int]


@dataclass
class Recorded:
    """A request as it came, and what became of it.

    Attributes:
        body: The JSON of it.
        headers: With names in lower case.
        gone: Set when the client closed the connection before the script had ended.
        served: Set when the script has ended.
    """

    body: dict[str, Any]
    headers: Mapping[str, str]
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    served: asyncio.Event = field(default_factory=asyncio.Event)


class Answer:
    """What a script writes with."""

    def __init__(self, request: web.Request, model: str, asked: Mapping[str, Any]) -> None:
        self.asked = asked
        self._request = request
        self._model = model
        self._response: web.StreamResponse | None = None

    async def status(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        """Answer with a status and no stream."""
        self._response = web.Response(status=status, text=body, headers=headers)
        await self._response.prepare(self._request)
        await self._response.write_eof()

    async def begin(self, status: int = 200) -> None:
        """The head of a stream; with HTTP 200 the request is accepted."""
        self._response = web.StreamResponse(
            status=status, headers={"content-type": "text/event-stream"}
        )
        await self._response.prepare(self._request)

    async def raw(self, data: bytes) -> None:
        """Write bytes as they are."""
        assert self._response is not None
        await self._response.write(data)

    async def chunk(
        self, text: str | None = None, finish: str | None = None, usage: Usage | None = None
    ) -> None:
        """Write one chunk; one with usage alone has no choices, as the protocol has it."""
        delta = {} if text is None else {"content": text}
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        await self.raw(
            b"data: %s\n\n"
            % json.dumps(
                {
                    "id": "chatcmpl-1",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": self._model,
                    "choices": [] if usage else choices,
                    "usage": usage and {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
                }
            ).encode()
        )

    async def tool(
        self, index: int, call_id: str = "", name: str = "", arguments: str = ""
    ) -> None:
        """Write a piece of a call of a function."""
        function = {"arguments": arguments} | ({"name": name} if name else {})
        call = {"index": index, "function": function} | ({"id": call_id} if call_id else {})
        choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
        await self.raw(b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode())

    async def done(self) -> None:
        """Write the mark of the end."""
        await self.raw(b"data: [DONE]\n\n")

    def cut(self) -> None:
        """Break the connection."""
        assert self._request.transport is not None
        self._request.transport.abort()


Script = Callable[[Answer], Awaitable[None]]


def good(
    tokens: Sequence[str] = TOKENS,
    *,
    pace: float = 0.0,
    finish: str = "stop",
    usage: Usage | None = (11, 4),
) -> Script:
    """A whole answer, a chunk for each token; `usage` None is a server that ignores the option."""

    async def script(answer: Answer) -> None:
        await answer.begin()
        for token in tokens:
            await answer.chunk(token)
            await asyncio.sleep(pace)
        await answer.chunk(finish=finish)
        if usage:
            await answer.chunk(usage=usage)
        await answer.done()

    return script


def status(code: int, body: str = "{}", headers: Mapping[str, str] | None = None) -> Script:
    """A status other than 200."""

    async def script(answer: Answer) -> None:
        await answer.status(code, body, headers or {})

    return script


def hang(tokens: Sequence[str] | None = None) -> Script:
    """Silence for ever: after some tokens, or, with None, before the status."""

    async def script(answer: Answer) -> None:
        if tokens is not None:
            await answer.begin()
            for token in tokens:
                await answer.chunk(token)
        await asyncio.Event().wait()

    return script


def drip(every: float = 0.02) -> Script:
    """Bytes all the time and never an event, first as comments and then as half a line."""

    async def script(answer: Answer) -> None:
        await answer.begin()
        for _ in range(5):
            await answer.raw(b": keep-alive\n\n")
            await asyncio.sleep(every)
        await answer.raw(b"data: ")
        while True:
            await answer.raw(b" ")
            await asyncio.sleep(every)

    return script


def raw(data: bytes, tokens: Sequence[str] = TOKENS[:2], *, stay: bool = False) -> Script:
    """Some good tokens, then these bytes, then the end of the response unless it is to stay."""

    async def script(answer: Answer) -> None:
        await answer.begin()
        for token in tokens:
            await answer.chunk(token)
        await answer.raw(data)
        if stay:
            await asyncio.Event().wait()

    return script


def ends_early(tokens: Sequence[str] = TOKENS[:2], *, done: bool = False) -> Script:
    """A response that ends in order but without a finish reason: half an answer."""
    return raw(b"data: [DONE]\n\n" if done else b"", tokens)


def cut(tokens: Sequence[str] = TOKENS[:2]) -> Script:
    """A connection that breaks in the middle of the answer."""

    async def script(answer: Answer) -> None:
        await answer.begin()
        for token in tokens:
            await answer.chunk(token)
        # What was written must be on its way, or nothing of it arrives.
        await asyncio.sleep(0.05)
        answer.cut()

    return script


def endless(text: str = "x" * 10_000) -> Script:
    """Text for ever, as fast as the client takes it."""

    async def script(answer: Answer) -> None:
        await answer.begin()
        while True:
            await answer.chunk(text)

    return script


class ScriptedOpenAi:
    """The server. Requests are answered by the scripts of `queue`, then by `script`."""

    def __init__(self) -> None:
        self.script: Script = good()
        self.queue: list[Script] = []
        self.requests: list[Recorded] = []
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> ScriptedOpenAi:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_post("/v1/moderations", self._moderate)
        # Handlers are cancelled when their client goes away: that is how `gone` is known.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def received(self) -> Recorded:
        """The newest request, after a wait for one if there was none."""
        await self._arrived.wait()
        return self.last

    @property
    def last(self) -> Recorded:
        """The newest request."""
        return self.requests[-1]

    async def _embed(self, request: web.Request) -> web.Response:
        """Vectors that say how long a text is, and which one of the request it was."""
        body = await request.json()
        size = body.get("dimensions", 2)
        rows = [
            {"index": place, "embedding": [len(text), place, *[1] * (size - 2)]}
            for place, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": sum(map(len, body["input"])), "total_tokens": 0}
        # In any order: `index` says which is which.
        return web.json_response({"data": rows[::-1], "usage": usage})

    async def _moderate(self, request: web.Request) -> web.Response:
        """Harm where it says `bad`."""
        body = await request.json()
        results = [
            {"flagged": "bad" in text, "category_scores": {"harm": 0.9 if "bad" in text else 0.1}}
            for text in body["input"]
        ]
        return web.json_response({"results": results})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        headers = {key.lower(): value for key, value in request.headers.items()}
        recorded = Recorded(body, headers)
        self.requests.append(recorded)
        self._arrived.set()
        script = self.queue.pop(0) if self.queue else self.script
        answer = Answer(request, str(body.get("model")), body)
        try:
            await script(answer)
        except (asyncio.CancelledError, ConnectionError):
            recorded.gone.set()
            raise
        finally:
            recorded.served.set()
        assert answer._response is not None
        return answer._response
