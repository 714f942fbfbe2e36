"""`plexus index`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.cli import output
from services.cli.address import Address
from services.cli.commands.shared import examples, url_option
from services.cli.settings import CliSettings, quiet_grpc

if TYPE_CHECKING:
    from plexus.context.v1.search_service_pb2 import GetIndexResponse

    from services.cli.client import Client

_LOOK_SECONDS = 0.5


@click.group(
    epilog=examples(
        "plexus index status",
        "plexus index rebuild",
    )
)
def index() -> None:
    """See how far the index of search is, and make it anew."""


@index.command(epilog=examples("plexus index status"))
@url_option
def status(url: str | None) -> int:
    """How much is in the index, and what it has not taken in yet."""
    settings = CliSettings()
    quiet_grpc()
    from services.cli import client

    address = Address.parse(url or settings.url)
    found = client.run(address.url, settings, _read)
    models = ", ".join(found.embedding_models) or "none, words alone"
    facts = {
        "entries": str(found.entries),
        "not taken in yet": str(found.behind),
        "kept by": found.backend,
        "embeddings": models,
        "made": found.create_time.ToJsonString(),
    }
    if found.HasField("rebuild_percent"):
        facts["being made anew"] = f"{found.rebuild_percent} %"
    output.facts(facts)
    return 0


@index.command(epilog=examples("plexus index rebuild", "plexus index rebuild --no-wait"))
@click.option("--no-wait", is_flag=True, help="Do not wait until it is made.")
@url_option
def rebuild(no_wait: bool, url: str | None) -> int:
    """Make the index anew from documents and memories, while the old one goes on serving.

    Ctrl-C stops waiting, not the work: `plexus index status` says how far it is.
    """
    settings = CliSettings()
    quiet_grpc()
    from services.cli import client

    address = Address.parse(url or settings.url)
    return client.run(
        address.url, settings, lambda connected: _rebuild(connected, wait=not no_wait)
    )


async def _read(client: Client) -> GetIndexResponse:
    from plexus.context.v1.search_service_pb2 import GetIndexRequest
    from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub

    from services.cli.client import deadlines

    stub, limit = SearchServiceStub(client.channel), deadlines("context")["GetIndex"]
    return await client.unary(
        lambda metadata: stub.GetIndex(GetIndexRequest(), metadata=metadata, timeout=limit)
    )


async def _rebuild(client: Client, *, wait: bool) -> int:
    import asyncio

    from plexus.context.v1.search_service_pb2 import RebuildIndexRequest
    from plexus.context.v1.search_service_pb2_grpc import SearchServiceStub

    from services.cli.client import deadlines

    stub, limit = SearchServiceStub(client.channel), deadlines("context")["RebuildIndex"]
    before = await _read(client)
    await client.unary(
        lambda metadata: stub.RebuildIndex(RebuildIndexRequest(), metadata=metadata, timeout=limit)
    )
    if not wait:
        output.note("The index is being made anew. See how far it is: plexus index status")
        return 0
    with output.progress("Making the index anew", 100) as reach:
        found = await _read(client)
        while found.HasField("rebuild_percent") or found.create_time == before.create_time:
            reach(found.rebuild_percent)
            await asyncio.sleep(_LOOK_SECONDS)
            found = await _read(client)
    output.note(f"The index is made anew: {found.entries} entries of yours.")
    return 0
