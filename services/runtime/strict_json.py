"""The gateway's question about a REST body: does the RPC know every field in it?

Envoy turns JSON into a message and drops what it does not know, so that a misspelt field is a
default that nobody asked for. Before it does, it asks here (its `ext_authz`). Only the names are
looked at, and that it is JSON at all; what a value may be is said by the transcoder and by the
contract's rules. Over gRPC an unknown field is how a newer client talks to an older server, and
nobody asks.

The answer depends on the contract and the body alone and needs no credential: whoever may connect
to this process may ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToJson
from plexus.gateway.v1.check_pb2 import (
    BodyCheckRequest,
    BodyCheckResponse,
    CheckedCode,
    CheckedStatus,
    DeniedHttp,
)

from services.runtime.errors import InvalidRequest, PlexusError, Violation
from services.runtime.status import to_status

SERVICE = "envoy.service.auth.v3.Authorization"
# What a route says about its RPC, as `context_extensions`.
RPC, BODY = "rpc", "body"
_WHOLE = "*"
_BAD_REQUEST = 400
_MAX_VIOLATIONS = 50
# A name that nobody knows may be as long as the body.
_MAX_NAME = 64
# Values in one body. They are read while everybody else of this process waits, up to a tenth of a
# second.
_MAX_VALUES = 100_000
_BETWEEN_VALUES = (b",", b"[", b"{")
_PASSES = BodyCheckResponse().SerializeToString()
_UNKNOWN = "There is no such field."

# The names of a message's fields, as the contract and as JSON spell them, each with what is within;
# None where nothing within has a name of the contract's.
_Shape = dict[str, "_Shape | None"]


class _Map(_Shape):
    """A map's shape: every key is known, and has the same within."""

    def __init__(self, values: _Shape) -> None:
        super().__init__()
        self._values = values

    def __missing__(self, key: str) -> _Shape:
        return self._values


# Objects become tuples of pairs, since a dict would forget the first of two equal names and all
# that is in it. Numbers stay text: nobody asks for their values, and a long one is costly.
_decode = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=str, parse_float=str, strict=False
).decode


class StrictJson:
    """Answers the gateway, for every RPC whose contract this process has loaded."""

    def __init__(self) -> None:
        """Nothing is known before it is asked about."""
        self._shapes: dict[tuple[str, str], _Shape | None] = {}
        self._messages: dict[str, _Shape] = {}

    def register(self, server: grpc.aio.Server) -> None:
        """Answer on this server, which has not started yet."""
        check: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self._check, request_deserializer=BodyCheckRequest.FromString
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Check": check})
        server.add_generic_rpc_handlers((handler,))

    def refuse(self, rpc: str, field: str, body: bytes) -> PlexusError | None:
        """What is wrong with a body; None when nothing is.

        Args:
            rpc: The RPC's path over gRPC.
            field: The request's field that the body is; `*` for the whole request.
            body: As it came.

        Raises:
            KeyError: This process has no such RPC, or that has no such field.
        """
        if (rpc, field) not in self._shapes:
            self._shapes[rpc, field] = self._shape(rpc, field)
        shape = self._shapes[rpc, field]
        if _values(body) > _MAX_VALUES:
            return _malformed(f"it has more than {_MAX_VALUES} values")
        try:
            value = _decode(body.decode() or "null")
            if shape is None or _fits(value, shape):
                return None
        except UnicodeDecodeError:
            return _malformed("it is not UTF-8")
        except json.JSONDecodeError as error:
            return _malformed(f"line {error.lineno}, column {error.colno}")
        except RecursionError:
            return _malformed("it is nested too deeply")
        return _unknown(list(islice(_strangers(value, shape, ""), _MAX_VIOLATIONS)))

    async def _check(
        self, request: BodyCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        attributes = request.attributes
        said = attributes.context_extensions
        try:
            error = self.refuse(said[RPC], said[BODY], attributes.request.http.raw_body)
        except KeyError:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "This process has no such RPC.")
        if error is None:
            return _PASSES
        return _denial(error)

    def _shape(self, rpc: str, field: str) -> _Shape | None:
        service, _, name = rpc.removeprefix("/").partition("/")
        found = descriptor_pool.Default().FindServiceByName(service)
        request = found.methods_by_name[name].input_type
        if field == _WHOLE:
            return self._message(request)
        return self._within(request.fields_by_name[field])

    def _message(self, message: Descriptor) -> _Shape:
        known = self._messages.get(message.full_name)
        if known is not None:
            return known
        # Holds the place, since a message may hold itself.
        shape = self._messages[message.full_name] = {}
        for field in message.fields:
            shape[field.name] = shape[field.json_name] = self._within(field)
        return shape

    def _within(self, field: FieldDescriptor) -> _Shape | None:
        message = field.message_type
        if message is None or _has_form_of_its_own(message):
            return None
        if message.GetOptions().map_entry:
            values = self._within(message.fields_by_name["value"])
            return None if values is None else _Map(values)
        return self._message(message)


def _values(body: bytes) -> int:
    """At least as many as the body has; counted exactly where that is too many."""
    if len(body) <= _MAX_VALUES:
        return 0
    count = sum(map(body.count, _BETWEEN_VALUES))
    if count > _MAX_VALUES:
        # Without escapes, every second quote ends a text.
        bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
        outside = b"".join(bare.split(b'"')[::2])
        count = sum(map(outside.count, _BETWEEN_VALUES))
    return count


def _has_form_of_its_own(message: Descriptor) -> bool:
    """Whether it is no object of its fields in JSON: a time, a struct, a wrapper."""
    name = message.full_name
    return name.startswith("google.protobuf.") and name != "google.protobuf.Empty"


def _fits(value: Any, shape: _Shape) -> bool:
    """Whether every name is known. Values of other kinds than they should be are not judged."""
    if type(value) is tuple:
        for name, item in value:
            try:
                within = shape[name]
            except KeyError:
                return False
            if within is not None and not _fits(item, within):
                return False
    elif type(value) is list:
        return all(_fits(item, shape) for item in value)
    return True


def _strangers(value: Any, shape: _Shape, path: str) -> Iterator[str]:
    """The paths of the names that are not known, as the caller would write them."""
    if type(value) is tuple:
        for name, item in value:
            # Half a pair of surrogates is a name in JSON, and no text.
            short = name[:_MAX_NAME].encode(errors="replace").decode()
            if isinstance(shape, _Map):
                inner = f"{path}[{short!r}]"
            else:
                inner = f"{path}.{short}" if path else short
            try:
                within = shape[name]
            except KeyError:
                yield inner
                continue
            if within is not None:
                yield from _strangers(item, within, inner)
    elif type(value) is list:
        for at, item in enumerate(value):
            yield from _strangers(item, shape, f"{path}[{at}]")


def _unknown(paths: list[str]) -> PlexusError:
    shown = list(dict.fromkeys(paths))
    return InvalidRequest(
        f"The body has fields that this call does not know: {', '.join(shown)}.",
        violations=[Violation(path, _UNKNOWN) for path in shown],
    )


def _malformed(detail: str) -> PlexusError:
    return InvalidRequest("The body is not JSON that can be read.", metadata={"detail": detail})


def _denial(error: PlexusError) -> bytes:
    status = to_status(error)
    body = MessageToJson(status, preserving_proto_field_name=True, indent=None)
    denied = DeniedHttp(status=CheckedStatus(code=_BAD_REQUEST), body=body)
    code = CheckedCode(code=status.code)
    return BodyCheckResponse(status=code, denied_response=denied).SerializeToString()
