"""`plexus call`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli.commands.shared import examples, url_option
from services.cli.errors import Failure
from services.cli.settings import CliSettings, quiet_grpc

if TYPE_CHECKING:
    from services.cli.catalogue import Catalogue


@click.command(
    epilog=examples(
        "plexus call --list",
        "plexus call agents/GetRun --describe",
        "plexus call agents/ListAgents --json '{\"page_size\": 5}'",
        'echo \'{"input": "Hello"}\' | plexus call agents/Process --json -',
    )
)
@click.argument("name", metavar="[MODULE/METHOD]", required=False)
@click.option(
    "--json",
    "source",
    metavar="JSON|@FILE|-",
    help="The request: JSON, a file that holds it, or - for stdin.  [default: {}]",
)
@click.option("--list", "listing", is_flag=True, help="Show every RPC there is.")
@click.option("--describe", is_flag=True, help="Show what the RPC takes, and call nothing.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="The longest to wait.  [default: as the contract says]",
)
@url_option
def call(
    name: str | None,
    source: str | None,
    listing: bool,
    describe: bool,
    timeout: float | None,
    url: str | None,
) -> None:
    """Call any RPC with JSON and print each reply as JSON.

    An RPC goes by its short name, such as agents/GetRun, or by its full one. Fields are named as
    in the contract. A stream prints one line for each message; Ctrl-C ends it.
    """
    from services.cli import output
    from services.cli.catalogue import Catalogue

    if listing:
        titles = ("RPC", "REST", "Permission", "Role", "What it does")
        output.table(titles, Catalogue.read().table())
        return
    if name is None:
        raise click.UsageError("Name an RPC, such as agents/ListAgents, or see them with --list.")
    catalogue = Catalogue.read()
    if describe:
        _describe(catalogue, name)
        return
    quiet_grpc()
    from services.cli import calls, client

    settings = CliSettings()
    rpc = catalogue.find(name)
    requests = calls.requests(catalogue, rpc, _read(source))
    seconds = timeout or rpc.policy.deadline
    client.run(
        url or settings.url,
        settings,
        lambda connected: calls.call(connected, catalogue, rpc, requests, seconds),
    )


def _read(source: str | None) -> str:
    if source is None:
        return "{}"
    if source == "-":
        return sys.stdin.read()
    if not source.startswith("@"):
        return source
    try:
        return Path(source[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Failure(
            f"{source[1:]} cannot be read: {why}. Name another file after @.", exit_code=2
        ) from None


def _describe(catalogue: Catalogue, name: str) -> None:
    from services.cli import output

    rpc = catalogue.find(name)
    method = rpc.method
    click.echo(f"{rpc.path[1:]}\n\n{rpc.comment}\n")
    stream = "a stream of " if method.server_streaming else ""
    output.facts(
        {
            "REST": rpc.rest or "none",
            "Access": f"{rpc.access} ({rpc.role} and above)" if rpc.role else rpc.access,
            "Deadline": f"{rpc.policy.deadline:g} s",
            "Takes": method.input_type.name,
            "Returns": f"{stream}{method.output_type.name}",
            "Example": catalogue.example(rpc),
        }
    )
    for title, message in (("Request", method.input_type), ("Reply", method.output_type)):
        rows = catalogue.fields(message, bounds=title == "Request")
        click.echo(f"\n{title}: {message.name}" + ("" if rows else " (no fields)"))
        if rows:
            bounds = ("Bounds",) if title == "Request" else ()
            output.table(("Field", "Type", *bounds, "What it is"), rows)
