"""`plexus up`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from services.cli.commands.shared import examples, given, place_options
from services.cli.errors import Failure

if TYPE_CHECKING:
    from services.runtime.settings import Settings


@click.command(
    epilog=examples(
        "plexus up --port 8090 --data-dir ~/plexus",
        "PLEXUS_REPLICAS=agents:2 plexus up --shape mesh",
    )
)
@place_options
@click.option(
    "--shape",
    type=click.Choice(("embedded", "mesh")),
    default="embedded",
    help="One process with every module, or a process for each group of them on PostgreSQL.",
)
def up(port: int | None, host: str | None, data_dir: str | None, shape: str) -> int:
    """Run Plexus on this machine until Ctrl-C.

    Embedded, every module is in one process behind Envoy; nothing else to install, no key to buy.
    What may be set besides these options is read from PLEXUS_* in the environment.
    """
    from services.up import main

    return main(_settings(given(port=port, host=host, data_dir=data_dir)), shape)


def _settings(values: dict[str, Any]) -> Settings:
    from pydantic import ValidationError

    from services.runtime.settings import Settings

    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [
            f"{'_'.join(('PLEXUS', *map(str, each['loc']))).upper()}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise Failure("A setting cannot be used. Change it and start again.", *lines) from None
