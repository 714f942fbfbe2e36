"""`plexus documents`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from services.cli.address import Address
from services.cli.commands.shared import examples, url_option
from services.cli.settings import CliSettings, quiet_grpc

_STATES = ("waiting", "reading", "ready", "failed")


@click.group(
    epilog=examples(
        "plexus documents add handbook.pdf notes/*.md --collection hr",
        "plexus documents list --state failed",
        "plexus documents show doc_01jd2m... --passages",
    )
)
def documents() -> None:
    """Bring documents, and see what became of them."""


@documents.command(
    epilog=examples(
        "plexus documents add handbook.pdf",
        "plexus documents add notes/*.md --collection notes --private",
        "plexus documents add https://example.com/page.html",
    )
)
@click.argument("what", nargs=-1, required=True, metavar="FILE|URL...")
@click.option("--collection", default="", metavar="NAME", help="A label to find them by.")
@click.option("--title", default="", help="What it is called; of one document alone.")
@click.option("--private", is_flag=True, help="Nobody else finds them.")
@click.option("--no-wait", is_flag=True, help="Do not wait until they are read.")
@url_option
def add(
    what: tuple[str, ...],
    collection: str,
    title: str,
    private: bool,
    no_wait: bool,
    url: str | None,
) -> int:
    """Bring files, or what is at addresses, and wait until they are read.

    A file of any size is sent in parts. One that was cut off is gone on with by the same command,
    for a day. Prints each document's id and state; the exit status is 1 where one cannot be read.
    """
    if title and len(what) > 1:
        raise click.UsageError("--title is for one document.")
    for each in what:
        if "://" not in each and not Path(each).is_file():
            raise click.UsageError(f"{each} is no file.")
    from services.cli.documents import Said, bring

    said = Said(collection, title, private)
    return _run(url, lambda client: bring(client, what, said, wait=not no_wait))


@documents.command("list", epilog=examples("plexus documents list --collection hr"))
@click.option("--collection", default="", metavar="NAME", help="Only with this label.")
@click.option("--state", type=click.Choice(_STATES), help="Only in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True,
              help="How many at most.")  # fmt: skip
@url_option
def list_(collection: str, state: str | None, limit: int, url: str | None) -> int:
    """List documents, the newest first."""
    from services.cli.documents import show_list

    number = _STATES.index(state) + 1 if state else 0
    return _run(url, lambda client: show_list(client, collection, number, limit))


@documents.command(epilog=examples("plexus documents show doc_01jd2m... --passages"))
@click.argument("document_id")
@click.option("--passages", is_flag=True, help="Print what it says, passage by passage.")
@url_option
def show(document_id: str, passages: bool, url: str | None) -> int:
    """Show a document."""
    from services.cli.documents import show_one

    return _run(url, lambda client: show_one(client, document_id, passages=passages))


@documents.command(epilog=examples("plexus documents rm doc_01jd2m... doc_01jd2n..."))
@click.argument("document_ids", nargs=-1, required=True)
@url_option
def rm(document_ids: tuple[str, ...], url: str | None) -> int:
    """Remove documents and what is attached to them."""
    from services.cli.documents import remove

    return _run(url, lambda client: remove(client, document_ids))


def _run(url: str | None, body: Any) -> int:
    from services.cli import client

    settings = CliSettings()
    quiet_grpc()
    address = Address.parse(url or settings.url)
    status: int = client.run(address.url, settings, body)
    return status
