"""`plexus login` and `plexus logout`."""

from __future__ import annotations

import sys

import click

from services.cli.address import Address
from services.cli.commands.shared import examples, url_option
from services.cli.errors import Failure
from services.cli.settings import CliSettings, quiet_grpc


@click.command(
    epilog=examples(
        "plexus login --register",
        "plexus login --email you@example.com",
        "plexus login --email you@example.com --password-stdin < secret",
    )
)
@click.option("--email", metavar="EMAIL", help="Whose account; asked for when left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, for scripts.")
@click.option("--register", is_flag=True, help="Make the account first.")
@click.option("--display-name", metavar="NAME", help="With --register: what others see.")
@url_option
def login(
    email: str | None,
    password_stdin: bool,
    register: bool,
    display_name: str | None,
    url: str | None,
) -> None:
    """Log in, or make an account and log in.

    The login is kept for this user in ~/.config/plexus/credentials.json and renewed by itself.
    """
    if display_name is not None and not register:
        raise click.UsageError("--display-name is for a new account: add --register.")
    settings = CliSettings()
    quiet_grpc()
    from services.cli import client, logins

    address = Address.parse(url or settings.url)
    if not (address.secure or address.local):
        click.echo(f"Note: {address.url} is not encrypted; use https if you can.", err=True)
    email = email or _ask("E-mail", "--email")
    if register:
        display_name = display_name or _ask("Display name", "--display-name", email.split("@")[0])
    password = _password(password_stdin, twice=register)
    known = client.run(
        address.url,
        settings,
        lambda connected: logins.log_in(connected, email, password, display_name),
    )
    click.echo(f"Logged in at {address.url} as {known.display_name} <{known.email}>.")
    if settings.token:
        click.echo("Note: PLEXUS_TOKEN is set and is used instead. Unset it first.", err=True)


@click.command(
    epilog=examples(
        "plexus logout",
    )
)
@url_option
def logout(url: str | None) -> None:
    """Forget the login of this user at an installation.

    API keys stay as they are.
    """
    settings = CliSettings()
    quiet_grpc()
    from services.cli import client

    address = Address.parse(url or settings.url)
    there = client.run(address.url, settings, lambda connected: connected.log_out())
    click.echo(
        f"Logged out of {address.url}." if there else f"You were not logged in at {address.url}."
    )


def _ask(what: str, option: str, default: str | None = None) -> str:
    if not sys.stdin.isatty():
        if default is not None:
            return default
        raise click.UsageError(f"Give {option}, since there is no terminal to ask on.")
    return str(click.prompt(what, default=default, err=True))


def _password(from_stdin: bool, *, twice: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise Failure("There is no password on stdin. Write it there, or leave the option out.")
        return password
    if not sys.stdin.isatty():
        raise click.UsageError("Give --password-stdin, since there is no terminal to ask on.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=twice, err=True))
