"""`plexus chat`."""

from __future__ import annotations

import shlex
import sys

import click

from services.cli.address import Address
from services.cli.commands.shared import examples, url_option
from services.cli.settings import CliSettings, quiet_grpc


@click.command(
    epilog=examples(
        'plexus chat "What can you do?"',
        'plexus chat --session ses_01jd2m... "And then?"',
        "plexus chat < question.txt",
        "plexus chat",
    )
)
@click.argument("message", required=False)
@click.option("--agent", default="", metavar="ID", help="Who answers.  [default: the built-in one]")
@click.option("--session", default="", metavar="ID", help="The conversation to go on with.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one line of JSON each.")
@url_option
def chat(message: str | None, agent: str, session: str, as_json: bool, url: str | None) -> int:
    """Talk with an agent.

    With a MESSAGE (or one on stdin) it prints the answer and exits; without, it goes on asking.
    Ctrl-C stops an answer, Ctrl-D leaves. A lost connection is taken up again where it broke.
    """
    settings = CliSettings()
    quiet_grpc()
    address = Address.parse(url or settings.url)
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read()
    if message is not None and not message.strip():
        raise click.UsageError("The message is empty: say what to ask.")
    if message is None:
        return _converse(address, settings, agent, session, as_json)
    return _once(address, settings, message, agent, session, as_json)


def _once(
    address: Address, settings: CliSettings, message: str, agent: str, session: str, as_json: bool
) -> int:
    from services.cli import client
    from services.cli.chat import ask

    turn = client.run(
        address.url,
        settings,
        lambda connected: ask(
            connected, message, agent_id=agent, session_id=session, as_json=as_json
        ),
    )
    _tell_session(turn.session_id, agent)
    return turn.outcome.value


def _converse(
    address: Address, settings: CliSettings, agent: str, session: str, as_json: bool
) -> int:
    from services.cli.conversation import Conversation

    click.echo(f"Talking at {address.url}. Ctrl-C stops an answer, Ctrl-D leaves.", err=True)
    with Conversation(address, settings, agent, session, as_json=as_json) as conversation:
        status = conversation.go_on()
    _tell_session(conversation.session_id, agent)
    return status


def _tell_session(session_id: str, agent: str) -> None:
    if session_id:
        option = f" --agent {shlex.quote(agent)}" if agent else ""
        click.echo(
            f'Session {session_id}. Go on with: plexus chat{option} --session {session_id} "…"',
            err=True,
        )
