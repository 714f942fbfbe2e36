"""Any RPC, called by what the descriptor set says about it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import click
import grpc
from google.protobuf.message import Message

from services.cli import output
from services.cli.catalogue import Catalogue, Rpc
from services.cli.client import Client, Metadata
from services.cli.errors import Failure, Problem
from services.cli.messages import from_value, read_values, to_json


def requests(catalogue: Catalogue, rpc: Rpc, text: str) -> list[Message]:
    """The messages to send, from JSON.

    Raises:
        Failure: The RPC cannot be called from outside, or the JSON does not fit it.
    """
    if rpc.policy.access == "internal":
        raise Failure(
            f"{rpc.name} is for services of the mesh alone: the gateway has no way to it. See "
            "what can be called with `plexus call --list`."
        )
    found = read_values(text) or [{}]
    if len(found) > 1 and not rpc.method.client_streaming:
        raise Failure(
            f"{rpc.name} takes one message, not {len(found)}. Call it once for each.", exit_code=2
        )
    kind = catalogue.contracts.message_class(rpc.method.input_type.full_name)
    return [from_value(value, kind, catalogue.contracts.pool) for value in found]


async def call(
    client: Client, catalogue: Catalogue, rpc: Rpc, messages: Sequence[Message], seconds: float
) -> None:
    """Call, for so many seconds at most, and print every reply as JSON.

    Raises:
        AioRpcError: The call failed.
    """
    method = rpc.method
    reply = catalogue.contracts.message_class(method.output_type.full_name)
    sides = f"{_side(method.client_streaming)}_{_side(method.server_streaming)}"
    callee = getattr(client.channel, sides)(
        rpc.path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reply.FromString,
    )

    def start(metadata: Metadata) -> Any:
        request = _each(messages) if method.client_streaming else messages[0]
        return callee(request, metadata=metadata, timeout=seconds)

    begun = time.monotonic()
    try:
        await _receive(client, rpc, start, catalogue)
    except grpc.aio.AioRpcError as error:
        # At its deadline a call may end in a reset instead: whichever of the two comes first.
        if Problem.of(error).reason or time.monotonic() - begun < seconds:
            raise
        raise Failure(
            f"The call did not end within {seconds:g} s. Allow it more with --timeout."
        ) from None


async def _receive(
    client: Client, rpc: Rpc, start: Callable[[Metadata], Any], catalogue: Catalogue
) -> None:
    public = rpc.policy.access == "public"
    pool = catalogue.contracts.pool
    if rpc.method.server_streaming:
        async for message in client.stream(start, public=public):
            click.echo(output.harmless(to_json(message, pool)))
    else:
        message = await client.unary(start, public=public)
        indent = 2 if output.on_terminal() else None
        click.echo(output.harmless(to_json(message, pool, indent=indent)))


def _side(streams: bool) -> str:
    return "stream" if streams else "unary"


async def _each(messages: Sequence[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message
