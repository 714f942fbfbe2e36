"""`plexus demo`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli import output
from services.cli.address import Address
from services.cli.commands.shared import examples, url_option
from services.cli.settings import CliSettings, quiet_grpc

if TYPE_CHECKING:
    from services.cli.client import Client
    from services.cli.demo import Taken


@click.command(
    epilog=examples(
        "plexus login --register",
        "plexus demo",
        'plexus demo --question "Where are the keys of providers kept?"',
        'plexus demo --folder ~/notes --question "When do we meet?"',
    )
)
@click.option("--question", metavar="TEXT", help="What to ask.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the documents are.  [default: this project's own]",
)
@url_option
def demo(question: str | None, folder: Path | None, url: str | None) -> int:
    """Take documents in and ask about them.

    The documents are this project's own: each is read, cut into passages and indexed; then the
    built-in agent answers from them, and says where each sentence stands. It may be repeated.
    """
    settings = CliSettings()
    quiet_grpc()
    from services.cli import client
    from services.cli.demo import QUESTIONS

    address = Address.parse(url or settings.url)
    place = folder or Path(__file__).resolve().parents[3]
    asked = (question,) if question else QUESTIONS
    return client.run(address.url, settings, lambda connected: _show(connected, place, asked))


async def _show(client: Client, folder: Path, questions: Sequence[str]) -> int:
    from services.cli.chat import ask
    from services.cli.demo import COLLECTION, own_documents, take_in

    documents = own_documents(folder)
    taken: list[Taken] = []
    with output.progress("Taking in documents", len(documents)) as reach:
        async with aclosing(take_in(client, documents)) as read:
            async for each in read:
                taken.append(each)
                reach(len(taken))
    rows = [
        (each.title, str(each.passages), each.problem or "ready")
        for each in sorted(taken, key=lambda each: each.title)
    ]
    output.table(("document", "passages", "state"), rows)
    for question in questions:
        output.note(f"\n{question}\n")
        turn = await ask(client, question)
        if turn.outcome.value:
            return turn.outcome.value
    output.note(
        "\nAsk on with `plexus chat`, and see the passages with:\n  plexus call context/Search "
        f'--json \'{{"query": "{questions[-1]}", "filter": "collection = {COLLECTION}"}}\''
    )
    return 0
