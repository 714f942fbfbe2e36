"""The health of every module, as the monitor tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any

import click
import grpc
from plexus.monitor.v1 import monitor_service_pb2 as pb
from plexus.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub

from services.cli.client import Client, deadlines
from services.cli.errors import Problem

_FIRST_SECONDS = 3.0
_PAUSE_SECONDS = 1.0
SERVING = "serving"
UNKNOWN = "unknown"
_WORDS = {
    pb.MODULE_STATUS_SERVING: SERVING,
    pb.MODULE_STATUS_NOT_SERVING: "not serving",
    pb.MODULE_STATUS_UNREACHABLE: "unreachable",
    pb.MODULE_STATUS_DEGRADED: "degraded",
}


async def now(client: Client, modules: Collection[str]) -> dict[str, str]:
    """How each module is now; `unknown` for one of which the monitor says nothing.

    Raises:
        Failure: There is no login, or it has ended.
        AioRpcError: The monitor cannot be asked.
    """
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(_FIRST_SECONDS), aclosing(_messages(client)) as messages:
            async for message in messages:
                # A second word about a module means that every module has had its first.
                if message.module_name in found:
                    break
                found[message.module_name] = word(message)
                if found.keys() >= set(modules):
                    break
    except TimeoutError:
        # Nothing more within that time: the table says `unknown` of those that are left.
        return dict.fromkeys(modules, UNKNOWN) | found
    return dict.fromkeys(modules, UNKNOWN) | found


async def follow(client: Client, known: dict[str, str]) -> None:
    """Print each change until Ctrl-C, whatever happens to the connection.

    Raises:
        Failure: The login has ended.
        AioRpcError: The monitor refuses.
    """
    while True:
        try:
            async with aclosing(_messages(client)) as messages:
                async for message in messages:
                    _tell(known, message.module_name, word(message))
                    _tell(known, "gateway", SERVING)
        except grpc.aio.AioRpcError as error:
            problem = Problem.of(error)
            if not problem.transient:
                raise
            if problem.code != "DEADLINE_EXCEEDED":
                _tell(known, "gateway", "unreachable")
        await asyncio.sleep(_PAUSE_SECONDS)


def word(message: pb.WatchHealthResponse) -> str:
    """A status in a word, and what is missing where something is."""
    found = _WORDS.get(message.status, UNKNOWN)
    return f"{found} (without {message.detail})" if message.detail else found


def _tell(known: dict[str, str], name: str, status: str) -> None:
    from datetime import datetime

    if known.get(name) != status:
        known[name] = status
        moment = datetime.now().astimezone().strftime("%H:%M:%S")
        click.echo(f"{moment}  {name}  {status}")


def _messages(client: Client) -> AsyncGenerator[Any, None]:
    stub = MonitorServiceStub(client.channel)
    deadline = deadlines("monitor")["WatchHealth"]
    return client.stream(
        lambda metadata: stub.WatchHealth(
            pb.WatchHealthRequest(), metadata=metadata, timeout=deadline
        )
    )
