"""A server that speaks OpenAI's chat-completions protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import SecretStr

from services.llm.domain.generation import (
    Embedded,
    Finished,
    FinishReason,
    Judgement,
    Piece,
    Prompt,
    Usage,
    limit_reached,
    model_unavailable,
)
from services.llm.gate import Gate
from services.llm.providers import refusals
from services.llm.providers.buffer import AnswerBuffer
from services.llm.providers.replies import embedded, judged
from services.llm.providers.requests import body_of
from services.llm.providers.sse import (
    DONE,
    BrokenStream,
    Chunk,
    EventSplitter,
    SurrogateMender,
    parse_chunk,
)
from services.runtime import log
from services.runtime.egress import Egress, GuardedTransport
from services.runtime.errors import DeadlineExceeded, PlexusError
from services.runtime.outgoing import HttpTransport

_logger = log.get(__name__)
_CONNECT_SECONDS = 10.0
# After a finish reason come at most the usage and [DONE]; an answer does not wait for them longer.
_EPILOGUE_SECONDS = 2.0
_MOMENT = 0.05
# How many answers a process writes at once is bounded by settings, before they come here.
_CONNECTIONS = 10_000
_MAX_BUFFERED = 65_536
_MAX_REPLY = 64 * 1024 * 1024
# What the contract lets a message hold: a longer answer could never be part of a conversation.
_MAX_ANSWER = 1_000_000
_FINISH = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}


class OpenAiCompatible:
    """One server."""

    def __init__(
        self,
        *,
        url: str,
        key: SecretStr,
        silence_seconds: float,
        gate: Gate,
        egress: Egress | None = None,
    ) -> None:
        """Prepare to call; nothing is sent before the first prompt.

        Args:
            url: The server's base URL.
            key: Its key; empty where it needs none.
            silence_seconds: How long it may say nothing.
            gate: Bounds the generations under way.
            egress: Judges the server's address; None where nobody has to.
        """
        self._silence = silence_seconds
        self._gate = gate
        # OpenAI's own server refuses the old name for its newer models; others know no new one.
        own = urlsplit(url).hostname == "api.openai.com"
        self._limit_field = "max_completion_tokens" if own else "max_tokens"
        self._name = urlsplit(url).hostname or ""
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(silence_seconds, connect=min(_CONNECT_SECONDS, silence_seconds)),
            # A redirect would carry the conversation to where nobody configured it to go.
            follow_redirects=False,
            transport=_transport(egress),
            event_hooks={"response": [refusals.refuse]},
        )
        # How the protocol's own client addresses a server, and names itself. Calls are made beneath
        # it: its methods walk through a conversation to leave it as it is, and make an object of
        # every chunk, which costs more than all the rest.
        client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key.get_secret_value(),
            # Not None, or it would be looked for in the environment.
            admin_api_key="",
            http_client=self._http,
        )
        self._url = str(client.base_url)
        headers = {
            **client.default_headers,
            **client.auth_headers,
            # These two come from variables that are no settings of ours.
            "OpenAI-Organization": openai.Omit(),
            "OpenAI-Project": openai.Omit(),
            # Compressed bytes could unfold to any size.
            "Accept-Encoding": "identity",
        }
        if not key.get_secret_value():
            headers["Authorization"] = openai.Omit()
        self._http.headers = httpx2.Headers(
            {name: value for name, value in headers.items() if isinstance(value, str)}
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def answer(self, model: str, prompt: Prompt) -> AsyncIterator[AsyncIterator[Piece]]:
        """See Provider. Accepted is what the server answered with HTTP 200."""
        async with self._gate.slot():
            body = {"model": model, **body_of(prompt, self._limit_field)}
            response = await self._accepted("chat/completions", body, prompt.due)
            # Closing the connection is how the server learns that nobody wants the rest.
            async with aclosing(response):
                buffer = AnswerBuffer(_MAX_BUFFERED)
                reader = asyncio.create_task(self._read(response, prompt, buffer))
                try:
                    yield _pieces(buffer)
                finally:
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)

    async def embed(
        self, model: str, texts: Sequence[str], dimensions: int | None, due: float | None
    ) -> Embedded:
        """See Backend."""
        body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        return embedded(await self._whole("embeddings", body, due), len(texts))

    async def moderate(
        self, model: str, texts: Sequence[str], due: float | None
    ) -> Sequence[Judgement]:
        """See Backend."""
        body = {"model": model, "input": list(texts)}
        return judged(await self._whole("moderations", body, due), len(texts))

    async def _whole(self, path: str, body: dict[str, Any], due: float | None) -> object:
        """Send a request and read its reply.

        Raises:
            PlexusError: The server did not accept it, or its reply is not JSON, or too long.
        """
        async with self._gate.slot():
            response = await self._accepted(path, body, due)
            async with aclosing(response):
                received = bytearray()
                try:
                    async with asyncio.timeout_at(self._until(due)):
                        async for part in response.aiter_raw():
                            received += part
                            if len(received) > _MAX_REPLY:
                                raise model_unavailable("The model's server wrote without end.")
                    return json.loads(received)
                except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
                    raise self._translated(error, due) from error
                except (ValueError, RecursionError) as error:
                    raise model_unavailable("The model's server broke its own protocol.") from error

    async def _accepted(
        self, path: str, body: dict[str, Any], due: float | None
    ) -> httpx2.Response:
        """Send the request and wait for the status.

        Raises:
            PlexusError: The server did not accept it, in time or at all.
        """
        try:
            async with asyncio.timeout_at(self._until(due)):
                content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
                request = self._http.build_request("POST", self._url + path, content=content)
                return await self._http.send(request, stream=True)
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            # asyncio's TimeoutError is an OSError too.
            raise self._translated(error, due) from error

    def _until(self, due: float | None) -> float:
        silent = asyncio.get_running_loop().time() + self._silence
        return silent if due is None else min(silent, due)

    def _translated(self, error: Exception, due: float | None) -> PlexusError:
        """What the caller gets; the server's own words may hold secrets and stay here."""
        if isinstance(error.__cause__, PlexusError):
            return error.__cause__  # the address was refused, or is not known
        _logger.warning("model_server_failed", server=self._name, error=type(error).__name__)
        if due is not None and asyncio.get_running_loop().time() >= due:
            return DeadlineExceeded("The model did not answer within the call's deadline.")
        if isinstance(error, openai.APIStatusError):
            return refusals.translated(error.response)
        if isinstance(error, httpx2.TimeoutException | TimeoutError):
            return model_unavailable("The model's server did not answer in time.")
        return model_unavailable("The model's server cannot be reached, or broke the connection.")

    async def _read(self, response: httpx2.Response, prompt: Prompt, buffer: AnswerBuffer) -> None:
        """Fill the buffer from the response, until its end or until cancelled."""
        progress = _Progress()
        try:
            await self._follow(response, prompt, progress, buffer)
        except PlexusError as error:
            progress.error = error
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            progress.error = self._translated(error, prompt.due)
        except BrokenStream as error:
            _logger.warning("model_server_broken", server=self._name, error=str(error))
            progress.error = model_unavailable("The model's server broke its own protocol.")
        except Exception as error:  # noqa: BLE001 - whoever reads the buffer must not wait for ever
            progress.error = error
        buffer.end(progress.outcome())

    async def _follow(
        self,
        response: httpx2.Response,
        prompt: Prompt,
        progress: _Progress,
        buffer: AnswerBuffer,
    ) -> None:
        events, mender = EventSplitter(), SurrogateMender()
        received = response.aiter_raw()
        async with asyncio.timeout_at(self._until(prompt.due)) as silence:
            async for data in received:
                # A sign of life is an event: bytes that drip, or comments, are none.
                payloads = events.feed(data)
                for payload in payloads:
                    if payload == DONE:
                        return
                    chunk = parse_chunk(payload)
                    text = mender.feed(progress.note(chunk))
                    if text:
                        buffer.put(text)
                    for each in chunk.calls:
                        buffer.put(each)
                if buffer.full:
                    silence.reschedule(None)  # the server is not the one who is waited for
                    await buffer.room()
                if payloads:
                    until = self._until(prompt.due)
                    if progress.finish:
                        now = asyncio.get_running_loop().time()
                        until = min(until, now + _EPILOGUE_SECONDS)
                    _move(silence, until)


def _move(timeout: asyncio.Timeout, until: float) -> None:
    # Each move costs a timer: a moment later is not worth one.
    if not 0 <= until - (timeout.when() or 0.0) < _MOMENT:
        timeout.reschedule(until)


def _transport(egress: Egress | None) -> httpx2.AsyncBaseTransport:
    if egress is None:
        return HttpTransport(_CONNECTIONS, by_environment=True)
    return GuardedTransport(egress, HttpTransport(_CONNECTIONS))


class _Progress:
    """What is known of an answer so far."""

    def __init__(self) -> None:
        self.finish: FinishReason | None = None
        self.error: Exception | None = None
        self._usage: Usage | None = None
        self._length = 0

    def note(self, chunk: Chunk) -> str:
        """Take in a chunk; returns its text.

        Raises:
            PlexusError: The server says it failed, or writes without end.
        """
        if chunk.error:
            raise model_unavailable("The model's server failed in the middle of its answer.")
        self._usage = chunk.usage or self._usage
        if chunk.finish:
            self.finish = _FINISH.get(chunk.finish)
            if self.finish is None:
                raise model_unavailable("The model stopped for a reason that ends no answer.")
        self._length += len(chunk.text) + sum(len(each.arguments) for each in chunk.calls)
        if self._length > _MAX_ANSWER:
            raise limit_reached(
                f"The answer is longer than {_MAX_ANSWER:,} characters.", "answer_characters"
            )
        return chunk.text

    def outcome(self) -> Finished | Exception:
        """How it ended.

        Only a finish reason makes an answer whole, and what breaks after it is no loss.
        """
        if self.finish is not None:
            return Finished(self.finish, self._usage)
        return self.error or model_unavailable(
            "The model's server ended in the middle of its answer."
        )


async def _pieces(buffer: AnswerBuffer) -> AsyncIterator[Piece]:
    while not isinstance(piece := await buffer.take(), Finished):
        yield piece
    yield piece
