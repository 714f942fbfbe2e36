"""One client for three protocols: the same call over REST, gRPC and gRPC-Web.

The REST form of a call is worked out from the contract's `google.api.http`, as a client in any
language would, so that every RPC can be tried over each.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import aiohttp
import grpc
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.runtime.errors import PlexusError
from services.runtime.status import DETAILS_KEY, from_status, remote_errors
from tests.gateway import grpcweb

M = TypeVar("M", bound=Message)
# json_format finds the details of a status only if their types were imported.
DETAILS = error_details_pb2.ErrorInfo


class Caller(Protocol):
    """Calls RPCs by `agents.v1.AgentsService/GetRun`; a refusal is raised as a PlexusError."""

    token: str

    async def unary(self, rpc: str, request: Message, reply: type[M]) -> M:
        """One call."""
        ...

    def stream(self, rpc: str, request: Message, reply: type[M]) -> AsyncIterator[M]:
        """A server stream."""
        ...


class Grpc:
    """Plain gRPC."""

    def __init__(self, url: str) -> None:
        self.token = ""
        self._channel = grpc.aio.insecure_channel(url.removeprefix("http://"))

    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    async def unary(self, rpc: str, request: Message, reply: type[M]) -> M:
        """See Caller."""
        call: Any = self._channel.unary_unary(
            f"/plexus.{rpc}", type(request).SerializeToString, reply.FromString
        )
        with remote_errors():
            answer: M = await call(request, metadata=self._metadata(), timeout=20)
            return answer

    async def stream(self, rpc: str, request: Message, reply: type[M]) -> AsyncIterator[M]:
        """See Caller."""
        call: Any = self._channel.unary_stream(
            f"/plexus.{rpc}", type(request).SerializeToString, reply.FromString
        )
        with remote_errors():
            async for each in call(request, metadata=self._metadata(), timeout=30):
                yield each

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()


class Rest:
    """JSON over HTTP, streams as server-sent events."""

    def __init__(self, url: str) -> None:
        self.token = ""
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30))

    @asynccontextmanager
    async def request(
        self, method: str, path: str, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A plain HTTP request with the token, if there is one."""
        headers = {**({"authorization": f"Bearer {self.token}"} if self.token else {})}
        headers |= more.pop("headers", {})
        async with self._session.request(
            method, self._url + path, headers=headers, **more
        ) as reply:
            transport = reply.connection.transport if reply.connection else None
            try:
                yield reply
            finally:
                # Answered before all of the body was sent: what is left would never be.
                if transport is not None and transport.get_write_buffer_size():
                    transport.abort()

    @asynccontextmanager
    async def _call(self, rpc: str, request: Message) -> AsyncIterator[aiohttp.ClientResponse]:
        method, path, body = binding(rpc)
        data = json_format.MessageToDict(request, preserving_proto_field_name=True)
        for name in re.findall(r"{(\w+)}", path):
            path = path.replace(f"{{{name}}}", str(data.pop(name)))
        sent = {"json": data} if body else {"params": data}
        async with self.request(method, path, **sent) as reply:
            if reply.status != 200:
                raise rest_error(await reply.text())
            yield reply

    async def unary(self, rpc: str, request: Message, reply: type[M]) -> M:
        """See Caller."""
        async with self._call(rpc, request) as response:
            return json_format.Parse(await response.text(), reply())

    async def stream(self, rpc: str, request: Message, reply: type[M]) -> AsyncIterator[M]:
        """See Caller."""
        async with self._call(rpc, request) as response:
            assert response.content_type == "text/event-stream"
            async for data in server_sent(response):
                yield json_format.Parse(data, reply())

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()
        # aiohttp's transports close in the loop's next rounds.
        await asyncio.sleep(0.01)


class GrpcWeb:
    """gRPC-Web, as a browser speaks it."""

    def __init__(self, url: str, *, text: bool) -> None:
        self.token = ""
        self._url = url
        self._text = text
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30))

    async def _call(self, rpc: str, request: Message) -> grpcweb.Reply:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        reply = await grpcweb.call(
            self._session, f"{self._url}/plexus.{rpc}", request, text=self._text, headers=headers
        )
        if reply.status != 0:
            details = reply.trailers.get(DETAILS_KEY, "")
            status = status_pb2.Status.FromString(
                base64.b64decode(details + "=" * (-len(details) % 4))
            )
            raise from_status(status)
        return reply

    async def unary(self, rpc: str, request: Message, reply: type[M]) -> M:
        """See Caller."""
        return reply.FromString((await self._call(rpc, request)).messages[0])

    async def stream(self, rpc: str, request: Message, reply: type[M]) -> AsyncIterator[M]:
        """See Caller."""
        for data in (await self._call(rpc, request)).messages:
            yield reply.FromString(data)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()
        # aiohttp's transports close in the loop's next rounds.
        await asyncio.sleep(0.01)


async def server_sent(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of server-sent events as they arrive."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].decode().rstrip("\n")


def rest_error(text: str) -> PlexusError:
    """The error that a JSON body stands for."""
    status = json_format.Parse(text, status_pb2.Status())
    return from_status(status)


def binding(rpc: str) -> tuple[str, str, bool]:
    """An RPC's HTTP method, path template, and whether its fields go into a body."""
    service, name = f"plexus.{rpc}".split("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return verb.upper(), getattr(rule, verb), rule.body == "*"


def message(name: str, text: str) -> Message:
    """A message of the contracts from JSON."""
    kind = descriptor_pool.Default().FindMessageTypeByName(name)
    return json_format.Parse(text or json.dumps({}), message_factory.GetMessageClass(kind)())
