"""One call over each way into a mesh, and one form for whatever comes back.

gRPC through Envoy and at the module's own socket, REST and gRPC-Web through Envoy. Nothing here
knows the product's clients: a call is bytes, and what is seen of the reply is every byte of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from proto.tools.descriptors import Binding
from tests.faults import http1
from tests.faults.rpcs import Rpc, as_json

WAYS = ("grpc", "rest", "web", "direct")
# json_format finds the details of a status only if their types were imported.
_DETAILS = error_details_pb2.ErrorInfo
_STATUS_KEY = "grpc-status-details-bin"
_OK, _UNKNOWN = 0, 2
_OF_HTTP = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14, 504: 4}
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a call came to.

    Attributes:
        code: The gRPC status, over REST that of the error's body; -1 where there was none.
        reason: The reason of its ErrorInfo, empty where there is none.
        details: Every other part of the error, in a form to compare.
        http: The HTTP status; 0 where that is not seen.
        messages: The replies' bytes, or their JSON.
        seen: Every byte that came.
    """

    code: int
    reason: str = ""
    message: str = ""
    details: str = ""
    http: int = 0
    messages: tuple[bytes, ...] = ()
    headers: tuple[str, ...] = ()
    seen: bytes = field(default=b"", repr=False)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == _OK


@dataclass(frozen=True)
class Raw:
    """A request over HTTP/1 before it is bytes."""

    verb: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def bytes(self) -> bytes:
        """As it goes out."""
        return http1.request(self.verb, self.path, self.headers, self.body)


def rest(rpc: Rpc, message: Message, binding: Binding | None = None) -> Raw:
    """A call as REST has it."""
    binding = binding or rpc.bindings[0]
    data = as_json(message)
    path = binding.template
    for name in binding.path_fields:
        # JSON leaves out a number that is nought, and a path does not.
        value = data.pop(name, getattr(message, name))
        path = path.replace("{" + name + "}", quote(str(value), safe=""))
    if not binding.body:
        query = urlencode(data, doseq=True)
        return Raw(binding.verb.upper(), path + (f"?{query}" if query else ""))
    whole = data if binding.body == "*" else data.get(binding.body, {})
    kind = ("content-type", "application/json")
    return Raw(binding.verb.upper(), path, (kind,), json.dumps(whole).encode())


def web(path: str, payload: bytes, *, text: bool = False) -> Raw:
    """A call as gRPC-Web has it."""
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    body = struct.pack(">BI", 0, len(payload)) + payload
    headers = (("content-type", kind), ("accept", kind), ("x-grpc-web", "1"))
    return Raw("POST", path, headers, base64.b64encode(body) if text else body)


class Mouth:
    """Calls a mesh in every way."""

    def __init__(self, port: int, socket: Path) -> None:
        self.http = http1.Client(port)
        options = [("grpc.max_receive_message_length", 32 << 20)]
        self._channels = {
            "grpc": grpc.aio.insecure_channel(f"127.0.0.1:{port}", options),
            "direct": grpc.aio.insecure_channel(f"unix:{quote(str(socket))}", options),
        }

    async def call(
        self, way: str, rpc: Rpc, message: Message, headers: Headers = (), *, most: int = 1
    ) -> Answer:
        """One call; of a stream, the first `most` replies or as many as there are."""
        payload = message.SerializeToString()
        if way in self._channels:
            return await self.grpc(way, rpc.path, payload, headers, most=most)
        raw = rest(rpc, message) if way == "rest" else web(rpc.path, payload)
        raw = Raw(raw.verb, raw.path, (*raw.headers, *headers), raw.body)
        return await self.plain(raw, first=rpc.streams and most == 1)

    async def send(self, rpc: Rpc, messages: Sequence[Message], headers: Headers = ()) -> bytes:
        """The one reply to a stream of messages, which must succeed."""
        call: Any = self._channels["grpc"].stream_unary(rpc.path)
        payloads = iter([each.SerializeToString() for each in messages])
        reply: bytes = await call(payloads, metadata=list(headers), timeout=rpc.deadline)
        return reply

    async def grpc(
        self,
        way: str,
        path: str,
        payload: bytes,
        headers: Headers = (),
        *,
        most: int = 1,
        seconds: float = 20,
    ) -> Answer:
        """A call over gRPC, by its path and the bytes of its request."""
        began = time.perf_counter()
        multi: Any = self._channels[way].unary_stream(path)
        call = multi(payload, metadata=list(headers), timeout=seconds)
        messages: list[bytes] = []
        try:
            async for each in call:
                messages.append(each)
                if len(messages) >= most:
                    break
            initial = await call.initial_metadata()
            if len(messages) >= most:
                call.cancel()
                return _grpc_ok(messages, initial, time.perf_counter() - began)
            trailing = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            initial, trailing = error.initial_metadata() or (), error.trailing_metadata() or ()
            return _grpc_error(error, messages, initial, trailing, time.perf_counter() - began)
        return _grpc_ok(messages, (*initial, *trailing), time.perf_counter() - began)

    async def plain(self, raw: Raw, *, first: bool = False, seconds: float = 20) -> Answer:
        """A request over HTTP/1, REST or gRPC-Web by its content type."""
        began = time.perf_counter()
        try:
            reply = await self.http.send(raw.bytes(), seconds=seconds, first=first)
        except http1.NoReply as error:
            return Answer(-1, message=f"no reply: {error}", seconds=time.perf_counter() - began)
        except TimeoutError:
            return Answer(-1, message="no reply in time", seconds=time.perf_counter() - began)
        return answer_of(reply, time.perf_counter() - began)

    async def close(self) -> None:
        """Let go of every connection."""
        await self.http.close()
        for channel in self._channels.values():
            await channel.close()


def answer_of(reply: http1.Reply, seconds: float = 0.0) -> Answer:
    """What an HTTP/1 reply comes to."""
    kind = reply.header("content-type")
    names = tuple(sorted(name for name, _ in reply.headers))
    seen = reply.head + reply.body
    # A refusal of the gateway's own may have no content type beside its status.
    if kind.startswith("application/grpc") or reply.header("grpc-status") not in ("", "0"):
        made = _web_answer(reply, kind)
    elif reply.status == 200:
        made = Answer(_OK, messages=(reply.body,))
    else:
        made = _rest_error(reply)
    return Answer(
        made.code, made.reason, made.message, made.details, reply.status, made.messages, names,
        seen + b"".join(made.messages), seconds,
    )  # fmt: skip


def _rest_error(reply: http1.Reply) -> Answer:
    try:
        status = json_format.Parse(reply.body, status_pb2.Status())
    except (json_format.ParseError, UnicodeDecodeError):
        return _foreign_error(reply)
    return _of_status(status)


def _foreign_error(reply: http1.Reply) -> Answer:
    """An error as OpenAI's protocol has it: the status says what gRPC's code would."""
    text = reply.body[:300].decode("latin-1")
    try:
        error = json.loads(reply.body)["error"]
        reason, message = str(error["code"]).upper(), str(error["message"])
    except (ValueError, LookupError, TypeError):
        return Answer(-1, message=text)
    code = 12 if reason == "UNKNOWN_METHOD" else _OF_HTTP.get(reply.status, 2)
    return Answer(code, reason, message, str(error.get("param") or ""))


def _web_answer(reply: http1.Reply, kind: str) -> Answer:
    body = reply.body
    if kind.startswith("application/grpc-web-text"):
        body = b"".join(base64.b64decode(body[at : at + 4]) for at in range(0, len(body), 4))
    trailers = {name: value for name, value in reply.headers if name.startswith("grpc-")}
    messages = []
    while len(body) >= 5:
        flags, size = struct.unpack(">BI", body[:5])
        content, body = body[5 : 5 + size], body[5 + size :]
        if not flags & 0x80:
            messages.append(content)
            continue
        for line in content.decode("latin-1").splitlines():
            name, _, value = line.partition(":")
            trailers[name.strip().lower()] = value.strip()
    code = int(trailers.get("grpc-status", _OK if messages and not reply.whole else -1))
    if code in (_OK, -1):
        return Answer(code, messages=tuple(messages))
    packed = trailers.get(_STATUS_KEY, "")
    data = base64.b64decode(packed + "=" * (-len(packed) % 4))
    return _with_status(code, unquote(trailers.get("grpc-message", "")), data, tuple(messages))


def _grpc_ok(messages: Sequence[bytes], metadata: Iterable[Any], seconds: float) -> Answer:
    pairs = [(key, _bytes(value)) for key, value in metadata]
    seen = b"\n".join([*messages, *(key.encode() + b": " + value for key, value in pairs)])
    names = tuple(sorted(key for key, _ in pairs))
    return Answer(_OK, messages=tuple(messages), headers=names, seen=seen, seconds=seconds)


def _grpc_error(
    error: grpc.aio.AioRpcError,
    messages: Sequence[bytes],
    initial: Iterable[Any],
    trailing: Iterable[Any],
    seconds: float,
) -> Answer:
    pairs = [(key, _bytes(value)) for key, value in (*initial, *trailing)]
    data = next((value for key, value in pairs if key == _STATUS_KEY), b"")
    made = _with_status(error.code().value[0], error.details() or "", data, tuple(messages))
    seen = b"\n".join(
        [*messages, made.message.encode(), *(key.encode() + b": " + value for key, value in pairs)]
    )
    names = tuple(sorted(key for key, _ in pairs))
    return Answer(
        made.code, made.reason, made.message, made.details, 0, made.messages, names, seen, seconds
    )


def _with_status(code: int, message: str, data: bytes, messages: tuple[bytes, ...]) -> Answer:
    try:
        status = status_pb2.Status.FromString(data)
    except DecodeError:
        status = status_pb2.Status()
    known = _of_status(status)
    return Answer(code, known.reason, message, known.details, messages=messages)


def _of_status(status: status_pb2.Status) -> Answer:
    reason, rest_of_it = "", []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
            # Every request has another.
            info.metadata.pop("request_id", None)
            info.metadata.pop("correlation_id", None)
            rest_of_it.append(json_format.MessageToJson(info, sort_keys=True, indent=None))
        else:
            rest_of_it.append(json_format.MessageToJson(detail, sort_keys=True, indent=None))
    return Answer(status.code, reason, status.message, "\n".join(rest_of_it))


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


async def until(seconds: float, holds: Any) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)
