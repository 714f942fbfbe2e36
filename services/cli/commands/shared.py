"""What several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def url_option(command: F) -> F:
    """`--url`: which installation."""
    return click.option(
        "--url",
        default=None,
        metavar="URL",
        help="The installation to speak to.  [default: PLEXUS_URL, or http://127.0.0.1:8080]",
    )(command)


def place_options(command: F) -> F:
    """`--port`, `--host` and `--data-dir`: which installation of this machine."""
    port = click.option(
        "--port", type=click.IntRange(1, 65535), help="The port of the gateway.  [default: 8080]"
    )
    host = click.option("--host", help="The address the gateway listens on.  [default: 127.0.0.1]")
    data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False),
        help="Where everything is kept: database, keys, logs.  [default: .plexus]",
    )
    return port(host(data_dir(command)))


def examples(*lines: str) -> str:
    """What `--help` ends with: commands to copy."""
    # A \b on a line of its own tells click to leave the lines below as they are.
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def given(**values: Any) -> dict[str, Any]:
    """The options that were given, so that the others come from the environment."""
    return {name: value for name, value in values.items() if value is not None}
