"""How things look: tables and colours on a terminal, plain text everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from services.cli.settings import no_color

if TYPE_CHECKING:
    from rich.text import Text

# Terminals act on control characters, and a model's text may hold any: all but \t and \n go.
_CONTROL = {number: None for number in (*range(32), *range(127, 160)) if chr(number) not in "\t\n"}
_STYLES = {
    "ok": "green",
    "serving": "green",
    "note": "yellow",
    "not serving": "yellow",
    "wrong": "bold red",
    "unreachable": "red",
    "not Plexus": "red",
    "unknown": "yellow",
}


def on_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def write(text: str) -> None:
    """Text of somebody else's to stdout at once, made harmless where a terminal would act on it."""
    sys.stdout.write(harmless(text) if on_terminal() else text)
    sys.stdout.flush()


def harmless(text: str) -> str:
    """The text without characters that a terminal acts on."""
    return text.translate(_CONTROL)


def note(text: str) -> None:
    """A remark beside the output, on stderr."""
    click.echo(text, err=True)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: columns side by side, the last one as wide as it needs."""
    cleaned = [[harmless(cell) for cell in row] for row in rows]
    if on_terminal():
        _rich_table(titles, cleaned)
    else:
        _plain_table(titles, cleaned)


def facts(pairs: Mapping[str, str]) -> None:
    """Print names and what they are, one a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        click.echo(f"{name:<{width}}  {harmless(value)}")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line on stderr elsewhere; gives what says how far it is."""
    if not on_terminal():
        note(f"{what} …")
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [[title.upper() for title in titles], *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _rich_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        # `doctor` must be able to say that it is missing.
        _plain_table(titles, rows)
        return
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for title in titles:
        grid.add_column(title, overflow="fold", no_wrap=not grid.columns)
    for row in rows:
        grid.add_row(*(_cell(cell) for cell in row))
    Console(color_system=None if no_color() else "auto", highlight=False).print(grid)


def _cell(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=_STYLES.get(text, ""))


def version() -> str:
    """The version of this command."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("plexus")
    except PackageNotFoundError:
        return "unknown: not installed"
