"""`plexus status`."""

from __future__ import annotations

import click

from services.cli import output
from services.cli.address import Address, Gateway, probe
from services.cli.commands.shared import examples, url_option
from services.cli.errors import Failure, NoLogin, Problem
from services.cli.settings import CliSettings, quiet_grpc


@click.command(
    epilog=examples(
        "plexus status",
        "plexus status --watch",
    )
)
@click.option("--watch", is_flag=True, help="Stay and print each change, until Ctrl-C.")
@url_option
def status(watch: bool, url: str | None) -> int:
    """Show how the gateway and every module are.

    The exit status is 1 if something does not serve.
    """
    settings = CliSettings()
    address = Address.parse(url or settings.url)
    click.echo(f"Plexus {output.version()}, asking {address.url}\n")
    gateway = probe(address)
    known = {"gateway": gateway.value}
    failure = _trouble(gateway, address)
    if gateway in (Gateway.SERVING, Gateway.NOT_SERVING):
        try:
            known |= _ask(address, settings)
        except Failure as error:
            failure = failure or error
    output.table(("Part", "Status"), [[name, status] for name, status in known.items()])
    if watch and not isinstance(failure, NoLogin):
        _follow(address, settings, known)
    if isinstance(failure, NoLogin):
        click.echo(f"\nOnly who is logged in sees the modules. {failure.message}", err=True)
        return 0
    if failure is not None:
        raise failure
    return 0 if all(map(_serves, known.values())) else 1


def _serves(status: str) -> bool:
    """Whether what has this word for a status answers; what is degraded does."""
    return status == Gateway.SERVING.value or status.startswith("degraded")


def _trouble(gateway: Gateway, address: Address) -> Failure | None:
    if gateway is Gateway.UNREACHABLE:
        return Problem("UNAVAILABLE", "", "").failure(address.url)
    if gateway is Gateway.STRANGER:
        return Failure(
            f"What answers at {address.url} is not Plexus. Name another address with --url."
        )
    if gateway is Gateway.NOT_SERVING:
        return Failure(
            "The gateway is up, and a module behind it does not serve. The log of Plexus says why: "
            "plexus.log in the folder logs of its data directory."
        )
    return None


def _ask(address: Address, settings: CliSettings) -> dict[str, str]:
    quiet_grpc()
    from services.cli import client, health
    from services.cli.catalogue import Catalogue

    modules = Catalogue.read().modules
    return client.run(address.url, settings, lambda connected: health.now(connected, modules))


def _follow(address: Address, settings: CliSettings, known: dict[str, str]) -> None:
    quiet_grpc()
    from services.cli import client, health

    click.echo("\nWatching for changes; Ctrl-C ends it.", err=True)
    client.run(address.url, settings, lambda connected: health.follow(connected, known))
