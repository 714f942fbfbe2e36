"""Outgoing calls that look like grpc's own and stand on as many attempts as they take.

grpc's interceptors would do, for a task more in each call and with no say over a stream's retry:
these begin the first attempt at once and repeat it, where that is allowed, while they are awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc

from services.runtime.contract import Method
from services.runtime.resilience.breaker import State
from services.runtime.resilience.bulkhead import Bulkhead, Full
from services.runtime.resilience.callee import Callee, had_full_time, too_late, verdict
from services.runtime.resilience.retries import MOST_TRIES
from services.runtime.status import from_rpc_error

Begin = Callable[[float | None], Any]


class Outgoing:
    """One call as its caller sees it.

    Until the caller awaits it, only the first attempt is made, and none if there is no place for
    it; what is asked about the call (`code`, `initial_metadata`) is told of the attempt under way.
    """

    def __init__(
        self,
        callee: Callee,
        method: Method | None,
        begin: Begin,
        due: float | None,
        pool: Bulkhead | None,
        guarded: bool,
    ) -> None:
        """Begin at once where nothing stands in the way.

        Args:
            callee: Who is called.
            method: The RPC; None where it is of no contract of ours.
            begin: Starts an attempt that has so many seconds.
            due: When the answer is due, in the event loop's time.
            pool: Where it takes a place.
            guarded: Whether the breaker may refuse it and learns from it.
        """
        self._callee = callee
        self._method = method
        self._begin = begin
        self._due = due
        self._pool = pool
        self._guarded = guarded
        self._call: Any = None
        self._error: grpc.aio.AioRpcError | None = None
        self._pause: asyncio.Future[None] | None = None
        self._cancelled = False
        self._tries = 0
        self._ticket: int | None = None
        self._full_time = False
        callee.retries.spent()
        try:
            self._refuse_early()
            if pool is None or pool.enter():
                self._attempt()
        except grpc.aio.AioRpcError as error:
            self._error = error  # raised where the call is awaited, as a callee's would be

    def _refuse_early(self) -> None:
        """Refuse what need not even wait for a place."""
        remaining = self.time_remaining()
        if remaining is not None and too_late(remaining):
            raise self._callee.late()
        blocked = self._callee.breaker.blocked() if self._guarded else 0.0
        if blocked:
            raise self._callee.unavailable(blocked)

    def _attempt(self) -> None:
        """Make an attempt; the place was taken, and is given back when the attempt has ended."""
        try:
            timeout = self.time_remaining()
            if timeout is not None and too_late(timeout):
                raise self._callee.late()
            if self._guarded:
                self._ticket = self._callee.breaker.enter()
                if self._ticket is None:
                    raise self._callee.unavailable(self._callee.breaker.blocked())
            call = self._begin(timeout)
        except BaseException:
            self._leave(None)
            raise
        if self._pool is not None:
            call.add_done_callback(self._leave)
        self._full_time = self._method is None or had_full_time(timeout, self._method.deadline)
        self._tries += 1
        self._call = call

    def _leave(self, _: object) -> None:
        if self._pool is not None:
            self._pool.leave()

    async def _ready(self) -> Any:
        """The attempt under way; one is made as soon as there is a place for it."""
        if self._call is not None:
            return self._call
        if self._error is not None:
            raise self._error
        try:
            await self._place()
            self._attempt()
        except grpc.aio.AioRpcError as error:
            self._error = error
            raise
        return self._call

    async def _place(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError
        await self._outwait_breaker()
        self._refuse_early()
        if self._pool is None or self._pool.enter():
            return
        remaining = self.time_remaining()
        try:
            self._pause = self._pool.queue()
            await self._pool.wait(self._pause, 3600.0 if remaining is None else remaining)
        except Full as full:
            raise self._callee.full() from full
        finally:
            self._pause = None

    async def _outwait_breaker(self) -> None:
        """Let a call that is made again wait while it may not be, for some turns at most.

        Calls that fail together, as all do on a connection that died, open the breaker for each
        other: the callee may be well, and it is by the next call that one finds out.
        """
        for turn in range(MOST_TRIES if self._tries and self._guarded else 0):
            breaker = self._callee.breaker
            wait, remaining = breaker.blocked(), self.time_remaining()
            if not wait or (remaining is not None and too_late(remaining - wait)):
                return
            # Behind a probe that may be over in no time, or after a pause, but not all at once.
            jitter = self._callee.delay(turn + 1)
            await self._sleep(wait + jitter if breaker.state is State.OPEN else min(wait, jitter))

    def _judge(self, good: bool | None) -> None:
        """Tell the breaker how the attempt went, once."""
        if self._ticket is not None:
            self._callee.breaker.leave(self._ticket, good)
            self._ticket = None

    async def _failed(self, error: grpc.aio.AioRpcError) -> None:
        """Come back when the call may be made again; raise the error where it may not.

        Repeated is what the contract calls idempotent, and only when nobody was there: after the
        time that the callee asked for, within the deadline, and as far as the budget goes.
        """
        self._judge(verdict(error, self._full_time))
        if not (self._may_repeat(error) and (wait := self._wait(error)) is not None):
            raise error
        self._callee.retried += 1
        self._call = None
        await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        """Wait, or be cancelled meanwhile."""
        self._pause = asyncio.get_running_loop().create_future()
        timer = self._pause.get_loop().call_later(seconds, _wake, self._pause)
        try:
            await self._pause
        finally:
            timer.cancel()
            self._pause = None

    def _may_repeat(self, error: grpc.aio.AioRpcError) -> bool:
        return (
            self._method is not None
            and self._method.retryable
            and error.code() is grpc.StatusCode.UNAVAILABLE
            and self._tries < MOST_TRIES
        )

    def _wait(self, error: grpc.aio.AioRpcError) -> float | None:
        """Seconds until the next attempt; None where it would be too late or too many."""
        asked = from_rpc_error(error).retry_after or 0.0
        wait = asked + self._callee.delay(self._tries)
        remaining = self.time_remaining()
        if remaining is not None and too_late(remaining - wait):
            return None
        return wait if self._callee.retries.take() else None

    # What grpc's own calls can be asked.

    def time_remaining(self) -> float | None:
        """Seconds until the answer is due."""
        return None if self._due is None else self._due - asyncio.get_running_loop().time()

    def cancel(self) -> bool:
        """Cancel the call, or what it waits for before its next attempt."""
        if self._cancelled or self.done():
            return False
        self._cancelled = True
        if self._pause is not None:
            self._pause.cancel()
        return self._call is None or bool(self._call.cancel())

    def cancelled(self) -> bool:
        """Whether it was cancelled here."""
        return self._cancelled or (self._call is not None and bool(self._call.cancelled()))

    def done(self) -> bool:
        """Whether there is nothing more to come."""
        if self._call is not None:
            return bool(self._call.done())
        return self._cancelled or self._error is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Be told of the end of the attempt under way."""
        if self._call is not None:
            self._call.add_done_callback(lambda _: callback(self))
        elif self.done():
            callback(self)
        else:
            raise grpc.aio.UsageError("the call has not begun: it waits for a place")

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What came before the first message."""
        metadata: grpc.aio.Metadata = await (await self._ready()).initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What came with the status."""
        if self._error is not None:
            return self._error.trailing_metadata()
        metadata: grpc.aio.Metadata = await (await self._ready()).trailing_metadata()
        return metadata

    async def code(self) -> grpc.StatusCode:
        """The status."""
        if self._error is not None:
            return self._error.code()
        code: grpc.StatusCode = await (await self._ready()).code()
        return code

    async def details(self) -> str:
        """The status's message."""
        if self._error is not None:
            return self._error.details() or ""
        return str(await (await self._ready()).details())

    async def wait_for_connection(self) -> None:
        """Wait until somebody is there."""
        await (await self._ready()).wait_for_connection()


class UnaryCall(Outgoing, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one answer."""

    def __await__(self) -> Generator[None, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        while True:
            call = self._call or await self._ready()
            try:
                answer = await call
            except grpc.aio.AioRpcError as error:
                await self._failed(error)
            except asyncio.CancelledError:
                self._judge(None)
                raise
            else:
                self._judge(True)
                return answer


class StreamCall(Outgoing, grpc.aio.UnaryStreamCall[Any, Any]):
    """A call with many answers. It is repeated until the first of them, and never after."""

    _replies: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    def __anext__(self) -> Any:
        return self._first() if self._replies is None else self._replies.__anext__()

    async def read(self) -> Any:
        """The next message, or grpc's EOF."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return grpc.aio.EOF

    async def _first(self) -> Any:
        while True:
            call = self._call or await self._ready()
            replies = aiter(call)
            try:
                first = await anext(replies)
            except grpc.aio.AioRpcError as error:
                await self._failed(error)
            except asyncio.CancelledError:
                self._judge(None)
                raise
            except StopAsyncIteration:
                self._replies = replies
                self._judge(True)
                raise
            else:
                self._replies = replies
                self._judge(True)
                return first


def once(callee: Callee, method: Method | None, begin: Begin, due: float | None) -> Any:
    """Make a call that cannot be repeated, if everything lets it through now.

    Raises:
        AioRpcError: Something does not.
    """
    single = _Single(callee, method, begin, due, None if method is None else callee.streams, True)
    return single.made()


class _Single(Outgoing):
    """One attempt, whose outcome is read when grpc says that it has ended."""

    _reading: asyncio.Task[None] | None = None

    def made(self) -> Any:
        """The attempt.

        Raises:
            AioRpcError: There was no place for it, no time, or the breaker is open.
        """
        if self._error is not None:
            raise self._error
        if self._call is None:
            raise self._callee.full()
        self._call.add_done_callback(self._ended)
        return self._call

    def _ended(self, _: object) -> None:
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        code = await self._call.code()
        error = grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), await self._call.trailing_metadata()
        )
        self._judge(True if code is grpc.StatusCode.OK else verdict(error, self._full_time))


def _wake(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
