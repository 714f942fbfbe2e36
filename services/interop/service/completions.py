"""Chat completions, vectors and models of OpenAI's protocol."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from urllib.parse import unquote

from services.interop.domain import reading, writing
from services.interop.domain.values import (
    Asked,
    Broken,
    Event,
    Finished,
    Named,
    Started,
    Text,
    ToolCall,
    ToolDelta,
)
from services.interop.service.shared import (
    AGENT,
    EVENTS,
    Agents,
    Models,
    Reply,
    failed,
    require_plain,
    told,
)
from services.runtime.errors import NotFound, PlexusError, Unavailable


class Completions:
    """The facade, but for responses."""

    def __init__(self, models: Models, agents: Agents) -> None:
        self._models = models
        self._agents = agents

    async def chat(self, data: bytes) -> AsyncGenerator[Reply, None]:
        """A chat completion, whole or as events."""
        begun = False
        try:
            asked = reading.chat(reading.body_of(data))
            async with aclosing(self._answer(asked)) as events:
                replies = _streamed(asked, events) if asked.stream else _whole(events)
                async with aclosing(replies):
                    async for reply in replies:
                        yield reply
                        begun = True
        except PlexusError as error:
            yield failed(error, begun=begun)

    async def vectors(self, data: bytes) -> Reply:
        """Vectors for texts."""
        try:
            asked = reading.vectors(reading.body_of(data))
            model, found, usage = await self._models.vectors(asked)
        except PlexusError as error:
            return failed(error, begun=False)
        body = writing.vectors(model, found, usage, as_base64=asked.base64)
        return Reply(writing.written(body))

    async def models(self) -> Reply:
        """Everything that a request may name."""
        try:
            found = await self._named()
        except PlexusError as error:
            return failed(error, begun=False)
        return Reply(writing.written(writing.models(found)))

    async def model(self, name: str) -> Reply:
        """One of them, by its name, in which clients write a slash as `%2F`."""
        name = unquote(name)
        try:
            for each in await self._named():
                if each.name == name:
                    return Reply(writing.written(writing.model(each)))
            raise NotFound(f"There is no model {name!r}.", reason="UNKNOWN_MODEL")
        except PlexusError as error:
            return failed(error, begun=False)

    async def _named(self) -> list[Named]:
        return [*await self._models.listed(), *await self._agents.listed()]

    async def _answer(self, asked: Asked) -> AsyncGenerator[Event, None]:
        if asked.model.startswith(AGENT):
            require_plain(asked)
            agent_id = await self._agents.find(asked.model)
            answer = _unbroken(self._agents.answer(agent_id, asked, told(asked)))
        else:
            answer = self._models.answer(asked)
        async with aclosing(answer) as events:
            async for event in events:
                yield event


async def _streamed(asked: Asked, events: AsyncIterator[Event]) -> AsyncGenerator[Reply, None]:
    started = await anext(events)
    assert isinstance(started, Started)
    chunks = writing.Chunks(started, int(time.time()), asked.include_usage)
    yield Reply(chunks.first(), content_type=EVENTS)
    async for event in events:
        if isinstance(event, Text):
            yield Reply(chunks.text(event), content_type=EVENTS)
        elif isinstance(event, ToolDelta):
            yield Reply(chunks.tool(event), content_type=EVENTS)
        elif isinstance(event, Finished):
            yield Reply(chunks.last(event), content_type=EVENTS)


async def _whole(events: AsyncIterator[Event]) -> AsyncGenerator[Reply, None]:
    started, finished = Started("", ""), Finished("stop")
    texts: list[str] = []
    calls: dict[int, ToolCall] = {}
    async for event in events:
        match event:
            case Started():
                started = event
            case Text(text):
                texts.append(text)
            case ToolDelta(index, call_id, name, arguments):
                known = calls.get(index, ToolCall("", "", ""))
                calls[index] = ToolCall(
                    known.call_id or call_id, known.name or name, known.arguments + arguments
                )
            case Finished():
                finished = event
    called = [calls[index] for index in sorted(calls)]
    body = writing.completion(started, int(time.time()), "".join(texts), called, finished)
    yield Reply(writing.written(body))


async def _unbroken(
    events: AsyncGenerator[Event | Broken, None],
) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Broken):
                raise Unavailable(event.message, reason=event.code)
            yield event
