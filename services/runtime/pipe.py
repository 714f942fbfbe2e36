"""What passes between a caller and a handler in one process, and the call as its caller sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc

# How far a handler may be ahead of who reads it.
_AHEAD_MESSAGES = 16
_AHEAD_BYTES = 65_536
Metadata = tuple[tuple[str, str | bytes], ...]


class Pipe:
    """What passes between a caller and a handler; the handler's context."""

    def __init__(
        self, encode: Callable[[Any], bytes], metadata: Metadata, due: float | None, most: int
    ) -> None:
        self.initial: Metadata = ()
        self.trailing: Metadata = ()
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.callbacks: list[Callable[[], None]] = []
        self._encode = encode
        self._metadata = metadata
        self._due = due
        self._most = most
        self._replies: deque[bytes] = deque()
        self._size = 0
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # What handlers and policies ask of grpc's context.

    def invocation_metadata(self) -> Metadata:
        """See grpc."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """See grpc."""
        if self._due is None:
            return None
        return max(0.0, self._due - asyncio.get_running_loop().time())

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """See grpc."""
        self.initial = metadata

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> None:
        """See grpc."""
        self.end(code, details, trailing_metadata)
        raise grpc.aio.AbortError

    async def write(self, reply: Any) -> None:
        """See grpc: waits while the reader is far behind."""
        self.add(reply)
        if len(self._replies) >= _AHEAD_MESSAGES or self._size >= _AHEAD_BYTES:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    # What both ends do.

    def add(self, reply: Any) -> None:
        """Pass a reply on."""
        data = self._encode(reply)
        if len(data) > self._most:
            self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "The message is too long.")
            raise grpc.aio.AbortError
        self._replies.append(data)
        self._size += len(data)
        _wake(self._news)

    def end(self, code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> None:
        """Nothing follows."""
        if self.code is None:
            self.code, self.details, self.trailing = code, details, trailing
            _wake(self._news)
            for callback in self.callbacks:
                callback()
            self.callbacks.clear()

    async def take(self) -> bytes | None:
        """The next reply; None where nothing follows."""
        while not self._replies:
            if self.code is not None:
                return None
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        data = self._replies.popleft()
        self._size -= len(data)
        if not self._replies:
            _wake(self._room)
        return data

    async def ended(self) -> None:
        """Wait until nothing follows."""
        if self.code is None:
            done = asyncio.get_running_loop().create_future()
            self.callbacks.append(lambda: _wake(done))
            await done


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class LocalCall:
    """A call as its caller sees it."""

    def __init__(
        self, pipe: Pipe, task: asyncio.Task[None], decode: Callable[[bytes], Any]
    ) -> None:
        self._pipe = pipe
        self._task = task
        self._decode = decode
        self._cancelled = False

    def cancel(self) -> bool:
        """See grpc."""
        if self.done():
            return False
        self._cancelled = True
        self._pipe.end(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        self._task.cancel()
        return True

    def cancelled(self) -> bool:
        """See grpc."""
        return self._cancelled

    def done(self) -> bool:
        """See grpc."""
        return self._pipe.code is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """See grpc."""
        if self.done():
            callback(self)
        else:
            self._pipe.callbacks.append(lambda: callback(None))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """See grpc; here they are known when it has ended."""
        await self._pipe.ended()
        return grpc.aio.Metadata(*self._pipe.initial)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """See grpc."""
        await self._pipe.ended()
        return grpc.aio.Metadata(*self._pipe.trailing)

    async def code(self) -> grpc.StatusCode:
        """See grpc."""
        await self._pipe.ended()
        assert self._pipe.code is not None
        return self._pipe.code

    async def details(self) -> str:
        """See grpc."""
        await self._pipe.ended()
        return self._pipe.details

    async def wait_for_connection(self) -> None:
        """See grpc."""

    async def _next(self) -> Any:
        """The next reply, decoded; None where it ended well.

        Raises:
            AioRpcError: It did not.
        """
        try:
            data = await self._pipe.take()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if data is not None and not self._cancelled:
            return self._decode(data)
        if self._cancelled:
            raise asyncio.CancelledError
        pipe = self._pipe
        assert pipe.code is not None
        if pipe.code is grpc.StatusCode.OK:
            return None
        raise grpc.aio.AioRpcError(
            pipe.code,
            grpc.aio.Metadata(*pipe.initial),
            grpc.aio.Metadata(*pipe.trailing),
            pipe.details,
        )


class LocalUnaryCall(LocalCall):
    """With one reply."""

    def __await__(self) -> Generator[None, None, Any]:
        return self._next().__await__()


class LocalStreamCall(LocalCall):
    """With many."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        reply = await self._next()
        if reply is None:
            raise StopAsyncIteration
        return reply
