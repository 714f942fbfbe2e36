"""One candidate after the other, until one begins to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from services.llm.domain.generation import (
    Backend,
    ModelUnavailable,
    Piece,
    Prompt,
    model_unavailable,
)
from services.llm.domain.routing import Limits, Passed, Why
from services.llm.formats import fitted
from services.llm.lately import Record
from services.llm.service.backends import Backends
from services.llm.service.catalogue import Catalogue, Served
from services.runtime import log
from services.runtime.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    PlexusError,
    ResourceExhausted,
    Unavailable,
)
from services.runtime.resilience.retries import full_jitter

_logger = log.get(__name__)
_ROUNDS = 3
_LATE = "The model did not answer within the call's deadline."


@dataclass(slots=True)
class Answering:
    """A candidate that has begun to answer.

    Attributes:
        first: What it said first; None where it ended without a word.
        pieces: What follows.
        stack: Closing it ends the provider's work.
    """

    served: Served
    record: Record
    ticket: int
    first: Piece | None
    pieces: AsyncIterator[Piece]
    stack: AsyncExitStack

    async def close(self, good: bool | None) -> None:
        """End the provider's work.

        Args:
            good: Whether it did as it should; None where that is not known.
        """
        self.record.breaker.leave(self.ticket, good)
        await self.stack.aclose()


@dataclass(slots=True)
class Search:
    """A look for a candidate that answers.

    Attributes:
        passed: Those that did not, in order.
        error: What the last of them said.
        again: Whether all were asked before.
    """

    prompt: Prompt
    limits: Limits
    passed: list[Passed] = field(default_factory=list)
    error: PlexusError | None = None
    again: bool = False


class Attempts:
    """Tries candidates."""

    def __init__(self, catalogue: Catalogue, backends: Backends) -> None:
        self._catalogue = catalogue
        self._backends = backends

    async def first(
        self, search: Search, candidates: Sequence[Served], hedge_after: float = 0.0
    ) -> Answering:
        """The first candidate that begins to answer.

        Where none does, they are tried again after a moment, as long as that can help, there is
        time, and not too many calls of theirs were made again already.

        Raises:
            PlexusError: What the last one said.
        """
        for tries in range(1, _ROUNDS + 1):
            found = await self._round(search, candidates, hedge_after)
            if found is not None:
                return found
            assert search.error is not None
            pause = max(full_jitter(tries), search.error.retry_after or 0.0)
            if not _can_help(search.error) or not _in_time(search.prompt, pause):
                break
            if tries == _ROUNDS:
                break
            candidates = [
                each for each in candidates if self._catalogue.record(each).retries.take()
            ]
            if not candidates:
                break
            search.again = True
            await asyncio.sleep(pause)
        assert search.error is not None
        raise search.error

    async def _round(
        self, search: Search, candidates: Sequence[Served], hedge_after: float
    ) -> Answering | None:
        left = list(candidates)
        while left:
            if hedge_after and len(left) > 1:
                found = await self._hedged(search, left[0], left[1], hedge_after)
                left = left[2:]
            else:
                found = await self._one(search, left.pop(0))
            if found is not None:
                return found
        return None

    async def _hedged(
        self, search: Search, one: Served, two: Served, after: float
    ) -> Answering | None:
        """The faster of two, of which the second is asked only when the first has not begun."""
        tasks = {asyncio.ensure_future(self._one(search, one))}
        winner: Answering | None = None
        try:
            done, tasks = await asyncio.wait(tasks, timeout=after)
            winner = next((each.result() for each in done), None)
            if winner is None:
                tasks.add(asyncio.ensure_future(self._one(search, two)))
            while winner is None and tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for found in [each.result() for each in done]:
                    if found is not None and winner is not None:
                        await found.close(None)
                    winner = winner or found
            return winner
        finally:
            await _dismissed(tasks)

    async def _one(self, search: Search, served: Served) -> Answering | None:
        """Ask one candidate; None where it does not answer, which is then noted."""
        record = self._catalogue.record(served)
        if not search.again:
            record.retries.spent()
        ticket = record.breaker.enter()
        if ticket is None:
            closed = model_unavailable(
                "The model failed so often lately that it is left alone for a moment.",
                retry_after=record.breaker.blocked(),
            )
            self._pass(search, served, Why.CIRCUIT_OPEN, closed)
            return None
        loop = asyncio.get_running_loop()
        began = loop.time()
        stack = AsyncExitStack()
        answering: Answering | None = None
        good: bool | None = None
        try:
            backend = await stack.enter_async_context(self._backends.of(served.provider))
            async with asyncio.timeout(_patience(search, loop.time())):
                first, pieces = await self._begun(stack, backend, served, search.prompt)
            record.began(loop.time() - began)
            answering = Answering(served, record, ticket, first, pieces, stack)
        except TimeoutError:
            if search.prompt.due is not None and loop.time() >= search.prompt.due:
                raise DeadlineExceeded(_LATE) from None
            good = False
            slow = model_unavailable("The model did not begin in time.")
            self._pass(search, served, Why.TOO_SLOW, slow)
        except PlexusError as error:
            good, why = _judged(error)
            self._pass(search, served, why, error)
            if isinstance(error, DeadlineExceeded):
                raise
        finally:
            if answering is None:
                await stack.aclose()
                record.breaker.leave(ticket, good)
                if good is False:
                    record.ended(False, 0, loop.time() - began, 0)
        return answering

    async def _begun(
        self, stack: AsyncExitStack, backend: Backend, served: Served, prompt: Prompt
    ) -> tuple[Piece | None, AsyncIterator[Piece]]:
        pieces = await stack.enter_async_context(
            backend.answer(served.name_there, fitted(prompt, served.model))
        )
        return await anext(pieces, None), pieces

    def _pass(self, search: Search, served: Served, why: Why, error: PlexusError) -> None:
        search.passed.append(Passed(served.model.name, why))
        search.error = error
        _logger.info("candidate_passed", model=served.model.name, why=why.name)


def _patience(search: Search, now: float) -> float | None:
    """How long a candidate may take to begin, in seconds: it may wait for its turn, too."""
    bounds = []
    if search.limits.max_first_token_ms:
        bounds.append(search.limits.max_first_token_ms / 1000)
    if search.prompt.due is not None:
        bounds.append(search.prompt.due - now)
    return min(bounds, default=None)


def _judged(error: PlexusError) -> tuple[bool | None, Why]:
    """What an error says of a candidate: whether it did well, and why it did not serve."""
    if isinstance(error, ResourceExhausted):
        return None, Why.BUSY
    if isinstance(error, InvalidRequest):
        return True, Why.FAILED
    if isinstance(error, DeadlineExceeded):
        return None, Why.TOO_SLOW
    return False, Why.GONE if isinstance(error, NotFound) else Why.FAILED


def _can_help(error: PlexusError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ModelUnavailable):
        return not error.lasting
    return isinstance(error, Unavailable | ResourceExhausted)


def _in_time(prompt: Prompt, pause: float) -> bool:
    # Half of what is left must remain for the answer.
    if prompt.due is None:
        return pause <= 1.0
    return pause <= min(1.0, (prompt.due - asyncio.get_running_loop().time()) / 2)


async def _dismissed(tasks: Iterable[asyncio.Task[Answering | None]]) -> None:
    """End attempts that nobody waits for any more."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Answering):
            await found.close(None)
