"""One adapter for the four shapes of RPC, so that a policy is two small methods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message

from services.runtime import strict_json
from services.runtime.context import CallContext, enter, leave, new_request_id
from services.runtime.errors import InvalidRequest, PlexusError
from services.runtime.interceptors.deadlines import Deadlines
from services.runtime.resilience.shedding import Admission, Shed
from services.runtime.status import abort, as_plexus_error

Servicing = grpc.aio.ServicerContext[Any, Any]
Metadata = dict[str, str]
Decode = Callable[[bytes], Message]
# Services that are not of our contracts: gRPC's own, and the gateway's questions about bodies.
_OF_OTHERS = ("/grpc.", f"/{strict_json.SERVICE}/")
# Tells the gateway that a client's stream is taken, and may last as long as its RPC.
_TAKEN: tuple[tuple[str, str], ...] = ()


class Policies(Protocol):
    """What holds for every RPC. Raising a PlexusError in a hook ends the RPC."""

    def seconds(self, method: str) -> float:
        """How long a call may take at most."""
        ...

    async def on_start(self, call: CallContext, metadata: Metadata) -> None:
        """Before the handler; nothing was read yet but the metadata."""
        ...

    def on_request(self, call: CallContext, request: Message) -> None:
        """For each message that the caller sends."""
        ...

    def on_reply(self, call: CallContext) -> None:
        """Before each message of a stream that the caller is sent."""
        ...

    def of_mesh(self, metadata: Metadata) -> bool:
        """Whether a call says that it comes from the mesh, which is yet to be verified."""
        ...


class Observer(Protocol):
    """Something that watches every RPC and never fails it."""

    def on_start(self, call: CallContext, metadata: Metadata) -> None:
        """Before the policies."""
        ...

    def on_request(self, call: CallContext, request: Message) -> None:
        """For each message that the caller sends, before the policies see it."""
        ...

    def on_end(self, call: CallContext, error: BaseException | None) -> None:
        """After the last message, or the error that the caller gets."""
        ...


class PolicyInterceptor(grpc.aio.ServerInterceptor):
    """Runs the policies around every handler and turns what it raises into a status.

    An error of the PlexusError family goes out with its details. Anything else becomes INTERNAL
    with a correlation id, and its text goes to the log alone.
    """

    def __init__(
        self, policies: Policies, observer: Observer, admission: Admission | None = None
    ) -> None:
        self._policies = policies
        self._observer = observer
        self._admission = admission or Admission()
        self._deadlines = Deadlines()
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler once and serve the wrapped one from then on."""
        method = str(details.method)
        known = self._wrapped.get(method)
        if known is None:
            handler = await continuation(details)
            if handler is None or method.startswith(_OF_OTHERS):
                return handler
            known = self._wrapped[method] = self.around(method, handler)
        return known

    def around(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler with the policies around it, which takes its request's bytes."""
        inner = cast(Any, handler)
        decode = inner.request_deserializer
        # Requests are decoded in here, where what cannot be becomes an error of ours.
        coders = (None, inner.response_serializer)
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, inner.stream_stream, decode), *coders
            )
        if inner.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(method, inner.stream_unary, decode, streams=True), *coders
            )
        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, inner.unary_stream, decode), *coders
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, inner.unary_unary, decode, streams=False), *coders
        )

    def _unary(
        self,
        method: str,
        behaviour: Callable[[Any, Servicing], Awaitable[Any]],
        decode: Decode,
        streams: bool,
    ) -> Callable[[Any, Servicing], Awaitable[Any]]:
        async def serve(request: Any, context: Servicing) -> Any:
            async with self._begun(method, context, streams) as call:
                if streams:
                    await context.send_initial_metadata(_TAKEN)
                return await behaviour(self._checked(call, request, decode), context)

        return serve

    def _streaming(
        self, method: str, behaviour: Callable[[Any, Servicing], AsyncIterator[Any]], decode: Decode
    ) -> Callable[[Any, Servicing], Awaitable[None]]:
        # Writing to the context rather than yielding keeps no generator of ours parked in a send:
        # a client that goes away cancels this task, and the handler's own generator is closed here.
        async def serve(request: Any, context: Servicing) -> None:
            async with self._begun(method, context, streams=True) as call:
                if not isinstance(request, bytes):
                    await context.send_initial_metadata(_TAKEN)
                replies = behaviour(self._checked(call, request, decode), context)
                async with contextlib.aclosing(cast(Any, replies)):
                    async for reply in replies:
                        self._policies.on_reply(call)
                        await context.write(reply)

        return serve

    def _checked(self, call: CallContext, request: Any, decode: Decode) -> Any:
        if isinstance(request, bytes):
            return self._check(call, request, decode)
        return self._checked_stream(call, request, decode)

    def _check(self, call: CallContext, data: bytes, decode: Decode) -> Message:
        try:
            request = decode(data)
        except DecodeError as error:
            raise InvalidRequest("The request cannot be decoded: see its contract.") from error
        self._observer.on_request(call, request)
        self._policies.on_request(call, request)
        return request

    async def _checked_stream(
        self, call: CallContext, requests: AsyncIterator[bytes], decode: Decode
    ) -> AsyncIterator[Message]:
        async for data in requests:
            yield self._check(call, data, decode)

    def _begun(self, method: str, context: Servicing, streams: bool) -> _Around:
        return _Around(self, method, context, streams)


class _Around:
    """The policies around one call.

    A class rather than a generator: this is on the path of every call, and costs a fifth less.
    """

    __slots__ = (
        "_admission",
        "_call",
        "_context",
        "_deadline",
        "_deadlines",
        "_method",
        "_observer",
        "_policies",
        "_scope",
        "_seat",
        "_streams",
    )

    def __init__(
        self, owner: PolicyInterceptor, method: str, context: Servicing, streams: bool
    ) -> None:
        self._policies = owner._policies
        self._observer = owner._observer
        self._admission = owner._admission
        self._deadlines = owner._deadlines
        self._method = method
        self._context = context
        self._streams = streams

    async def __aenter__(self) -> CallContext:
        # Keys that end in `-bin` have bytes; nobody here reads one.
        metadata: Metadata = dict(cast(Any, self._context.invocation_metadata()) or ())
        longest = self._policies.seconds(self._method)
        mesh = self._policies.of_mesh(metadata)
        try:
            self._seat = self._admission.enter(self._streams, mesh)
        except Shed as refusal:
            # Nobody looks at it any further: a refusal is to cost less than the call would.
            await abort(self._context, refusal)
            raise
        remaining = self._context.time_remaining()
        self._call = begin_call(self._method, metadata, min(longest, remaining or longest))
        self._scope = enter(self._call)
        self._observer.on_start(self._call, metadata)
        self._deadline = self._deadlines.begin(self._call.deadline or 0.0)
        try:
            await self._policies.on_start(self._call, metadata)
            if not mesh:
                principal = self._call.principal
                self._seat.claim(principal.tenant_id if principal else "")
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self._call

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._deadline.passed(error):
            error = TimeoutError()
        known = as_plexus_error(error) if isinstance(error, Exception) else error
        self._seat.leave()
        self._observer.on_end(self._call, known)
        leave(self._scope)
        if isinstance(known, PlexusError):
            await abort(self._context, known)


def begin_call(method: str, metadata: Metadata, seconds: float) -> CallContext:
    """The context of a call that just arrived and has so many seconds."""
    parent = metadata.get("traceparent")
    parts = parent.split("-") if parent else ()
    return CallContext(
        request_id=metadata.get("x-request-id", "")[:64] or new_request_id(),
        trace_id=parts[1] if len(parts) == 4 and len(parts[1]) == 32 else new_request_id(),
        deadline=asyncio.get_running_loop().time() + seconds,
        method=method,
    )
