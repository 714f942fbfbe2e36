"""Responses of OpenAI's protocol: of models as they are kept, of agents as their runs stand."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from services.interop.domain import items, reading, responses, writing
from services.interop.domain.kept import no_previous, own_id
from services.interop.domain.responses import PREFIX, Response
from services.interop.domain.values import (
    AskedResponse,
    Broken,
    End,
    Finished,
    Piece,
    RunView,
    Started,
    Text,
)
from services.interop.service.background import Background
from services.interop.service.keeping import Keeper
from services.interop.service.shared import (
    AGENT,
    EVENTS,
    Agents,
    Reply,
    failed,
    require_plain,
    told,
)
from services.runtime.context import Principal
from services.runtime.errors import InvalidRequest, NotFound, PlexusError

_DEFAULT_ITEMS = 20
_Happening = AsyncGenerator[Piece | End, None]


class Responses:
    """The facade for responses."""

    def __init__(self, agents: Agents, keeper: Keeper, background: Background) -> None:
        self._agents = agents
        self._keeper = keeper
        self._background = background

    async def create(self, who: Principal, data: bytes) -> AsyncGenerator[Reply, None]:
        """A response, whole, as events, or one that goes on by itself."""
        begun = False
        try:
            asked = responses.asked(reading.body_of(data))
            response, events = await self._begin(who, asked)
            async with aclosing(events), aclosing(_replies(asked, response, events)) as replies:
                async for reply in replies:
                    yield reply
                    begun = True
        except PlexusError as error:
            yield failed(error, begun=begun)

    async def _begin(self, who: Principal, asked: AskedResponse) -> tuple[Response, _Happening]:
        if asked.asked.model.startswith(AGENT):
            run = await self._run(asked)
            return Response(await _started(run), int(time.time()), asked.echo), run
        if asked.background and not asked.store:
            raise InvalidRequest.field("background", "needs store, which is turned off")
        kept, request = await self._keeper.new(who, asked)
        if asked.background:
            await self._background.accept(kept, request)
            return kept.begun(), self._background.follow(kept.tenant_id, kept.response_id)
        answer = self._keeper.answer(kept, request)
        return replace(kept, model=(await _started(answer)).model).begun(), answer

    async def _run(self, asked: AskedResponse) -> _Happening:
        request = asked.asked
        require_plain(request)
        if asked.previous:
            if own_id(asked.previous):
                raise no_previous(asked.previous)
            before = await self._agents.run(_run_id(asked.previous))
            request = replace(request, session_id=before.started.session_id)
        agent_id = await self._agents.find(request.model)
        return self._agents.answer(agent_id, request, told(request))

    async def get(
        self, who: Principal, response_id: str, *, stream: bool, after: int
    ) -> AsyncGenerator[Reply, None]:
        """A response as it stands, or its events behind one of them."""
        begun = False
        try:
            if not stream:
                yield Reply(writing.written(await self._standing(who, response_id)))
                return
            response, events = await self._watched(who, response_id)
            # At once, for the first event may be far off, or none may be left.
            yield Reply(b"", content_type=EVENTS)
            begun = True
            async with aclosing(events), aclosing(_numbered(response, events)) as numbered:
                async for number, data in numbered:
                    if number > after:
                        yield Reply(data, content_type=EVENTS)
        except PlexusError as error:
            yield failed(error, begun=begun)

    async def _watched(self, who: Principal, response_id: str) -> tuple[Response, _Happening]:
        if own := own_id(response_id):
            kept, _ = await self._keeper.get(who.tenant_id, own)
            return kept.begun(), self._background.follow(who.tenant_id, own)
        run = await self._agents.run(_run_id(response_id))
        return Response(run.started, run.created, {}), self._agents.watch(run)

    async def _standing(self, who: Principal, response_id: str) -> dict[str, Any]:
        if own := own_id(response_id):
            kept, said = await self._keeper.get(who.tenant_id, own)
            return kept.shown(said)
        return _of_run(await self._agents.run(_run_id(response_id)))

    async def cancel(self, who: Principal, response_id: str) -> Reply:
        """A response after somebody wanted it to end."""
        return await _reply(self._cancelled(who, response_id))

    async def _cancelled(self, who: Principal, response_id: str) -> dict[str, Any]:
        if not (own := own_id(response_id)):
            return _of_run(await self._agents.cancel(_run_id(response_id)))
        kept, _ = await self._keeper.get(who.tenant_id, own)
        await self._background.cancel(kept)
        return await self._standing(who, response_id)

    async def remove(self, who: Principal, response_id: str) -> Reply:
        """Forget a model's response."""
        return await _reply(self._removed(who, response_id))

    async def _removed(self, who: Principal, response_id: str) -> dict[str, Any]:
        if not own_id(response_id):
            _run_id(response_id)
            raise InvalidRequest.field("response_id", "is an agent's, whose runs are kept")
        await self._cancelled(who, response_id)
        await self._keeper.remove(who.tenant_id, own_id(response_id))
        return {"id": response_id, "object": "response", "deleted": True}

    async def input_items(
        self, who: Principal, response_id: str, after: str, limit: int, *, ascending: bool
    ) -> Reply:
        """A page of what was asked in a response."""
        return await _reply(
            self._input(who, response_id, after, limit or _DEFAULT_ITEMS, ascending=ascending)
        )

    async def _input(
        self, who: Principal, response_id: str, after: str, limit: int, *, ascending: bool
    ) -> dict[str, Any]:
        if own := own_id(response_id):
            kept, _ = await self._keeper.get(who.tenant_id, own)
            return items.page(own, kept.items, after, limit, ascending=ascending)
        run = await self._agents.run(_run_id(response_id))
        asked = items.read(run.asked)
        return items.page(run.started.answer_id, asked, after, limit, ascending=ascending)


async def _started(events: AsyncIterator[Piece | End]) -> Started:
    first = await anext(events)
    assert isinstance(first, Started)
    return first


async def _replies(
    asked: AskedResponse, response: Response, events: AsyncIterator[Piece | End]
) -> AsyncGenerator[Reply, None]:
    if asked.asked.stream:
        async for _, data in _numbered(response, events):
            yield Reply(data, content_type=EVENTS)
        return
    if asked.background:
        # Whoever leaves it leaves it to itself.
        yield Reply(writing.written(response.shown("in_progress")))
        return
    body = None
    async for event in events:
        if isinstance(event, Finished | Broken):
            body = response.ended(event)
        else:
            response.take([event])
    # Of an answer that broke off, the error has been raised by now where there is one.
    assert body is not None
    yield Reply(writing.written(body))


async def _numbered(
    response: Response, events: AsyncIterator[Piece | End]
) -> AsyncGenerator[tuple[int, bytes], None]:
    for each in response.begin():
        yield each
    async for event in events:
        if isinstance(event, Finished | Broken):
            numbered = response.end(event)
        else:
            numbered = response.piece(event)
        for each in numbered:
            yield each


async def _reply(asking: Awaitable[dict[str, Any]]) -> Reply:
    try:
        return Reply(writing.written(await asking))
    except PlexusError as error:
        return failed(error, begun=False)


def _of_run(run: RunView) -> dict[str, Any]:
    response = Response(run.started, run.created, {})
    if run.text:
        response.take([Text(run.text)])
    return response.shown("in_progress") if run.end is None else response.ended(run.end)


def _run_id(response_id: str) -> str:
    run_id = response_id.removeprefix(PREFIX)
    if run_id == response_id:
        raise NotFound.of("response")
    return run_id
