"""Models of a server that speaks OpenAI's chat-completions protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import SecretStr

from services.llm.domain import (
    Delta,
    Finished,
    FinishReason,
    Model,
    Piece,
    Prompt,
    Usage,
    limit_reached,
    model_unavailable,
)
from services.llm.gate import Gate
from services.llm.providers import refusals
from services.llm.providers.buffer import AnswerBuffer
from services.llm.providers.sse import (
    DONE,
    BrokenStream,
    Chunk,
    EventSplitter,
    SurrogateMender,
    parse_chunk,
)
from services.runtime import log
from services.runtime.errors import DeadlineExceeded, PlexusError

if TYPE_CHECKING:
    from openai._response import AsyncAPIResponse

_logger = log.get(__name__)
_CONNECT_SECONDS = 10.0
# After a finish reason come at most the usage and [DONE]; an answer does not wait for them longer.
_EPILOGUE_SECONDS = 2.0
_MAX_BUFFERED = 65_536
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
}


class OpenAiCompatible:
    """One model of one server."""

    def __init__(
        self,
        *,
        url: str,
        key: SecretStr,
        model: str,
        context_window: int,
        silence_seconds: float,
        gate: Gate,
    ) -> None:
        """Prepare to call; nothing is sent before the first prompt.

        Args:
            url: The server's base URL.
            key: Its key; empty where it needs none.
            model: The model's name there.
            context_window: Tokens that its request and answer share.
            silence_seconds: How long it may say nothing.
            gate: Bounds the generations under way.
        """
        self.models = (Model(f"openai/{model}", "openai", context_window),)
        self._model = model
        self._silence = silence_seconds
        self._gate = gate
        # OpenAI's own server refuses the old name for its newer models; others know no new one.
        own = urlsplit(url).hostname == "api.openai.com"
        self._limit_field = "max_completion_tokens" if own else "max_tokens"
        self._headers: dict[str, Any] = {
            # Compressed bytes could unfold to any size; and these two would come from variables
            # that are no settings of ours.
            "Accept-Encoding": "identity",
            "OpenAI-Organization": openai.Omit(),
            "OpenAI-Project": openai.Omit(),
        }
        if not key.get_secret_value():
            self._headers["Authorization"] = openai.Omit()
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key.get_secret_value(),
            # Not None, or it would be looked for in the environment.
            admin_api_key="",
            # Whether to try again is the caller's to decide: it knows what it has shown already.
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(
                    silence_seconds, connect=min(_CONNECT_SECONDS, silence_seconds)
                ),
                # A redirect would carry the conversation to where nobody configured it to go.
                follow_redirects=False,
                event_hooks={"response": [refusals.refuse]},
            ),
        )
        # Its many overloads know dozens of parameters, and not a dictionary of them.
        self._create: Any = self._client.chat.completions.with_streaming_response.create

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @asynccontextmanager
    async def answer(self, model: Model, prompt: Prompt) -> AsyncIterator[AsyncIterator[Piece]]:
        """See Provider. Accepted is what the server answered with HTTP 200."""
        async with self._gate.slot():
            response = await self._accepted(prompt)
            # Closing the connection is how the server learns that nobody wants the rest.
            async with aclosing(response.http_response):
                buffer = AnswerBuffer(_MAX_BUFFERED)
                reader = asyncio.create_task(self._read(response, prompt, buffer))
                try:
                    yield _pieces(buffer)
                finally:
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)

    async def _accepted(self, prompt: Prompt) -> AsyncAPIResponse[Any]:
        """Send the request and wait for the status.

        Raises:
            PlexusError: The server did not accept it, in time or at all.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": each.role.value, "content": each.text} for each in prompt.messages
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.max_output_tokens is not None:
            body[self._limit_field] = prompt.max_output_tokens
        if prompt.temperature is not None:
            # The contract's float has single precision: 0.7 would be sent as 0.699999988079071.
            body["temperature"] = round(prompt.temperature, 6)
        try:
            async with asyncio.timeout_at(self._until(prompt)):
                request = self._create(**body, extra_headers=self._headers)
                response: AsyncAPIResponse[Any] = await request.__aenter__()
                return response
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            # asyncio's TimeoutError is an OSError too.
            raise self._translated(error, prompt) from error

    def _until(self, prompt: Prompt) -> float:
        silent = asyncio.get_running_loop().time() + self._silence
        return silent if prompt.due is None else min(silent, prompt.due)

    def _translated(self, error: Exception, prompt: Prompt) -> PlexusError:
        """What the caller gets; the server's own words may hold secrets and stay here."""
        _logger.warning("model_server_failed", model=self._model, error=type(error).__name__)
        if prompt.due is not None and asyncio.get_running_loop().time() >= prompt.due:
            return DeadlineExceeded("The model did not answer within the call's deadline.")
        if isinstance(error, openai.APIStatusError):
            return refusals.translated(error.response, self.models[0].name)
        if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError):
            return model_unavailable("The model's server did not answer in time.")
        return model_unavailable("The model's server cannot be reached, or broke the connection.")

    async def _read(
        self, response: AsyncAPIResponse[Any], prompt: Prompt, buffer: AnswerBuffer
    ) -> None:
        """Fill the buffer from the response, until its end or until cancelled."""
        progress = _Progress()
        try:
            await self._follow(response, prompt, progress, buffer)
        except PlexusError as error:
            progress.error = error
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            progress.error = self._translated(error, prompt)
        except BrokenStream as error:
            _logger.warning("model_server_broken", model=self._model, error=str(error))
            progress.error = model_unavailable("The model's server broke its own protocol.")
        except Exception as error:  # noqa: BLE001 - whoever reads the buffer must not wait for ever
            progress.error = error
        buffer.end(progress.outcome())

    async def _follow(
        self,
        response: AsyncAPIResponse[Any],
        prompt: Prompt,
        progress: _Progress,
        buffer: AnswerBuffer,
    ) -> None:
        events, mender = EventSplitter(), SurrogateMender()
        received = response.http_response.aiter_raw()
        until = self._until(prompt)
        while True:
            # A sign of life is an event: bytes that drip, or comments, are none.
            async with asyncio.timeout_at(until):
                data = await anext(received, None)
            if data is None:
                return
            for payload in events.feed(data):
                if payload == DONE:
                    return
                text = mender.feed(progress.note(parse_chunk(payload)))
                if text:
                    await buffer.put(text)
                until = self._until(prompt)
            if progress.finish:
                until = min(until, asyncio.get_running_loop().time() + _EPILOGUE_SECONDS)


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
        self._length += len(chunk.text)
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
    while isinstance(piece := await buffer.take(), str):
        yield Delta(piece)
    yield piece
