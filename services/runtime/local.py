"""Calls between modules of one process: the same contracts, policies and errors, and no socket.

A call by grpc to one's own process costs more than most of what is called. Here a request goes to
the handler that grpc would give it to, policies around it, in a task and a context of its own. What
passes is bytes all the same, so that nobody holds what somebody else may change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import grpc

from services.runtime import log
from services.runtime.pipe import LocalCall, LocalStreamCall, LocalUnaryCall, Metadata, Pipe

_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """What answers an RPC that takes one message.

    Attributes:
        serve: As grpc has it, with the policies around it; takes the request's bytes.
        encode: Makes bytes of a reply.
        streams: Whether it writes its replies to the context.
    """

    serve: Callable[[Any, Any], Awaitable[Any]]
    encode: Callable[[Any], bytes]
    streams: bool


class LocalServices:
    """What this process serves, as its own modules reach it."""

    def __init__(self, most_bytes: int) -> None:
        """Prepare; nobody is answered before `open`.

        Args:
            most_bytes: How long a message may be.
        """
        self.most_bytes = most_bytes
        self.opened = asyncio.Event()
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, path: str, handler: Handler) -> None:
        """Serve an RPC."""
        self._handlers[path] = handler

    def find(self, path: str) -> Handler | None:
        """What answers an RPC; None where this process does not."""
        return self._handlers.get(path)

    def begin(self, pipe: Pipe, handler: Handler, data: bytes, wait: bool) -> asyncio.Task[None]:
        """Answer a call."""
        task = asyncio.get_running_loop().create_task(
            self._serve(pipe, handler, data, wait), context=Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, pipe: Pipe, handler: Handler, data: bytes, wait: bool) -> None:
        try:
            if wait:
                await self.opened.wait()
            if not self.opened.is_set():
                pipe.end(grpc.StatusCode.UNAVAILABLE, "This process does not serve now.")
                return
            if len(data) > self.most_bytes:
                pipe.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "The message is too long.")
                return
            reply = await handler.serve(data, pipe)
            if not handler.streams:
                pipe.add(reply)
            pipe.end(grpc.StatusCode.OK)
        except grpc.aio.AbortError:
            pass  # the status is the pipe's already
        except asyncio.CancelledError:
            pipe.end(grpc.StatusCode.UNAVAILABLE, "This process stops.")
            raise
        except Exception as error:
            _logger.error("local_call_failed", exc_info=error)
            pipe.end(grpc.StatusCode.UNKNOWN, "Something failed that should not.")

    async def close(self) -> None:
        """Answer nobody any more, and cut off what is under way."""
        self.opened.clear()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class LocalChannel(grpc.aio.Channel):
    """Calls this process where it answers, and goes by the socket otherwise.

    That is so for gRPC's own services and for streams of requests.
    """

    def __init__(self, services: LocalServices, remote: grpc.aio.Channel) -> None:
        self._services = services
        self._remote = remote

    def unary_unary(self, method: str, *coders: Any, **others: Any) -> Any:
        """See grpc."""
        handler = self._services.find(method)
        if handler is None or handler.streams:
            return self._remote.unary_unary(method, *coders, **others)
        return _Callable(self._services, handler, LocalUnaryCall, *coders)

    def unary_stream(self, method: str, *coders: Any, **others: Any) -> Any:
        """See grpc."""
        handler = self._services.find(method)
        if handler is None or not handler.streams:
            return self._remote.unary_stream(method, *coders, **others)
        return _Callable(self._services, handler, LocalStreamCall, *coders)

    def stream_unary(self, method: str, *coders: Any, **others: Any) -> Any:
        """See grpc."""
        return self._remote.stream_unary(method, *coders, **others)

    def stream_stream(self, method: str, *coders: Any, **others: Any) -> Any:
        """See grpc."""
        return self._remote.stream_stream(method, *coders, **others)

    async def close(self, grace: float | None = None) -> None:
        """See grpc."""
        await self._remote.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc."""
        return self._remote.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc."""
        await self._remote.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc."""
        await self._remote.channel_ready()

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Callable:
    """One RPC."""

    def __init__(
        self,
        services: LocalServices,
        handler: Handler,
        kind: type[LocalCall],
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
    ) -> None:
        self._services = services
        self._handler = handler
        self._kind = kind
        self._encode = encode
        self._decode = decode

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        wait_for_ready: bool | None = None,
        **_: object,
    ) -> LocalCall:
        now = asyncio.get_running_loop().time()
        due = None if timeout is None else now + timeout
        services, handler = self._services, self._handler
        pipe = Pipe(handler.encode, tuple(metadata or ()), due, services.most_bytes)
        task = services.begin(pipe, handler, self._encode(request), bool(wait_for_ready))
        return self._kind(pipe, task, self._decode)


class Registrar:
    """Where modules register their servicers: with grpc's server, and for their neighbours."""

    def __init__(
        self,
        server: grpc.aio.Server,
        services: LocalServices,
        wrap: Callable[[str, Any], Any],
    ) -> None:
        """Register with both.

        Args:
            server: Serves others.
            services: Serves this process.
            wrap: Puts the policies around a handler.
        """
        self._server = server
        self._services = services
        self._wrap = wrap

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """See grpc."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """See grpc."""
        self._server.add_registered_method_handlers(service, dict(handlers))
        for name, handler in handlers.items():
            inner: Any = handler
            if inner.request_streaming:
                continue
            path = f"/{service}/{name}"
            wrapped = self._wrap(path, handler)
            streams = bool(inner.response_streaming)
            serve = wrapped.unary_stream if streams else wrapped.unary_unary
            self._services.add(path, Handler(serve, inner.response_serializer, streams))
