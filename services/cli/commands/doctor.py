"""`plexus doctor`."""

from __future__ import annotations

import click

from services.cli import output
from services.cli.commands.shared import examples, given, place_options
from services.cli.settings import quiet_grpc


@click.command(
    epilog=examples(
        "plexus doctor",
        "plexus doctor --port 8090 --data-dir ~/plexus",
    )
)
@place_options
def doctor(port: int | None, host: str | None, data_dir: str | None) -> int:
    """Say what is missing on this machine, and how to mend it.

    Nothing is changed. The exit status is 1 if something is wrong.
    """
    quiet_grpc()
    from services.cli import checks

    findings = checks.examine(given(port=port, host=host, data_dir=data_dir))
    titles = ("", "What", "Found", "To mend it")
    output.table(titles, [[each.mark, each.what, each.fact, each.mend] for each in findings])
    wrong = sum(each.mark == checks.WRONG for each in findings)
    if wrong:
        click.echo(f"\n{wrong} of {len(findings)} checks found something wrong.", err=True)
    return 1 if wrong else 0
