"""The command and its subcommands."""

from __future__ import annotations

from collections.abc import Sequence

import click

from services.cli.commands.call import call
from services.cli.commands.chat import chat
from services.cli.commands.demo import demo
from services.cli.commands.doctor import doctor
from services.cli.commands.documents import documents
from services.cli.commands.index import index
from services.cli.commands.login import login, logout
from services.cli.commands.shared import examples
from services.cli.commands.status import status
from services.cli.commands.up import up
from services.cli.errors import Failure
from services.cli.output import version

INTERRUPTED = 130


_START = examples(
    "plexus up                  run it on this machine",
    "plexus login --register    make an account",
    "plexus demo                take documents in and ask about them",
    'plexus chat "Hello!"       ask the built-in agent',
)


@click.group(
    epilog=_START,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True,
              callback=lambda context, _, wanted: _print_version(context, wanted),
              help="Show the version and exit.")  # fmt: skip
def plexus() -> None:
    """Plexus: a self-hosted backend for virtual agents.

    PLEXUS_URL names another installation, PLEXUS_TOKEN an API key to use instead of a login.
    """


for _command in (up, status, login, logout, demo, chat, documents, index, call, doctor):
    plexus.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    try:
        status = plexus.main(list(arguments), prog_name="plexus", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo(err=True)
        return INTERRUPTED
    except ImportError as error:
        failure = Failure(
            f"{error.name or error} cannot be imported. Run `plexus doctor` to see what is missing."
        )
        failure.show()
        return failure.exit_code
    return status if isinstance(status, int) else 0


def _print_version(context: click.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"plexus {version()}")
        context.exit()
