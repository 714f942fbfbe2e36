"""A channel whose calls go through what is known of their callee."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from services.runtime.context import CallContext, current_or_none
from services.runtime.contract import Method
from services.runtime.resilience.callee import Callee, allowance
from services.runtime.resilience.calls import Begin, StreamCall, UnaryCall, once

Sign = Callable[[Any, CallContext | None], Any]


class GuardedChannel(grpc.aio.Channel):
    """Looks like grpc's channel, so that every stub and every caller works on it."""

    def __init__(
        self,
        connect: Callable[[], grpc.aio.Channel],
        callee: Callee,
        methods: Mapping[str, Method],
        sign: Sign,
    ) -> None:
        """Wrap a channel.

        Args:
            connect: Makes the channel underneath.
            callee: What is known of who is called.
            methods: The policies of its RPCs. Others, such as those of gRPC's health, go through
                as they are: it is by them that one learns who is there.
            sign: Adds to a call's metadata what the mesh needs to know.
        """
        self._connect = connect
        self.inner = connect()
        self.callee = callee
        self.methods = methods
        self.sign = sign

    def reconnect(self) -> grpc.aio.Channel:
        """Make the next calls on a new channel, and hand over the old one for its calls to end."""
        old, self.inner = self.inner, self._connect()
        return old

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc."""
        coders = request_serializer, response_deserializer
        return _Unary(self, "unary_unary", method, *coders, registered=_registered_method)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc."""
        coders = request_serializer, response_deserializer
        return _Stream(self, "unary_stream", method, *coders, registered=_registered_method)

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc."""
        coders = request_serializer, response_deserializer
        return _Upload(self, "stream_unary", method, *coders, registered=_registered_method)

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc."""
        coders = request_serializer, response_deserializer
        return _Upload(self, "stream_stream", method, *coders, registered=_registered_method)

    async def close(self, grace: float | None = None) -> None:
        """See grpc."""
        await self.inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc."""
        return self.inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc."""
        await self.inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc."""
        await self.inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


class _Callable:
    """One RPC on a guarded channel."""

    def __init__(
        self, channel: GuardedChannel, shape: str, method: str, *coders: Any, registered: Any
    ) -> None:
        self._channel = channel
        self._shape = shape
        self._path = method
        self._coders = coders
        self._registered = registered
        self._method = channel.methods.get(method)
        self._on: grpc.aio.Channel | None = None
        self._begin: Any = None

    def _bound(self, request: Any, metadata: Any, call: CallContext | None, **others: Any) -> Begin:
        """What makes one attempt, on the channel that is underneath now."""
        if self._on is not self._channel.inner:
            self._on = self._channel.inner
            make: Any = getattr(self._on, self._shape)
            self._begin = make(self._path, *self._coders, _registered_method=self._registered)
        begin, signed = self._begin, self._channel.sign(metadata, call)
        return lambda seconds: begin(request, timeout=seconds, metadata=signed, **others)

    def _due(self, timeout: float | None, call: CallContext | None) -> float | None:
        """When the answer is due: by the contract, and in time for whoever waits for the caller."""
        now = asyncio.get_running_loop().time()
        if timeout is None and self._method is not None:
            timeout = self._method.deadline
        if call is None or call.deadline is None:
            return None if timeout is None else now + timeout
        given = allowance(call.deadline - now)
        return now + (given if timeout is None else min(timeout, given))


class _Unary(_Callable, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        call = current_or_none()
        begin = self._bound(
            request,
            metadata,
            call,
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        callee, due, known = self._channel.callee, self._due(timeout, call), self._method
        guarded = known is not None and not wait_for_ready
        return UnaryCall(callee, known, begin, due, callee.calls if known else None, guarded)


class _Stream(_Callable, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        call = current_or_none()
        begin = self._bound(
            request,
            metadata,
            call,
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        callee, due, known = self._channel.callee, self._due(timeout, call), self._method
        # Who waits until somebody is there follows something for good, such as revocations: it is
        # how a process learns that a callee is back, and nothing may keep it out.
        guarded = known is not None and not wait_for_ready
        return StreamCall(callee, known, begin, due, callee.streams if guarded else None, guarded)


class _Upload(_Callable, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """A stream of requests cannot be sent twice: it passes the gates once and is grpc's own."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        call = current_or_none()
        begin = self._bound(
            request_iterator,
            metadata,
            call,
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        return once(self._channel.callee, self._method, begin, self._due(timeout, call))
