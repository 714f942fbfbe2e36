"""CSV and TSV; and rows of any table whose first one may name its columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from services.ingest.parsing.records import Output
from services.ingest.parsing.refusals import Refused
from services.ingest.parsing.text import encoding_of

_SNIFFED = 65_536
_MAX_FIELD = 1_000_000
_MAX_LINE = 10_000_000
_DELIMITERS = ",;\t|"


class Rows:
    """Rows as they come: the first one with more than one cell names the columns."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._begun = False

    def add(self, cells: Sequence[str]) -> None:
        """The next row; an empty one is none."""
        filled = sum(1 for each in cells if each.strip())
        if not filled:
            return
        if self._begun:
            self._output.text.row(cells)
        elif filled > 1 or len(cells) == 1:
            self._output.text.table(cells)
            self._begun = True
        else:
            # Above a table there are often lines that say what it is.
            self._output.text.text(" ".join(cells))

    def end(self) -> None:
        """There are no more."""
        self._output.text.end_table()


def read(file: BinaryIO, output: Output) -> None:
    """Read separated values.

    Raises:
        Refused: A line or a field is too large.
    """
    csv.field_size_limit(_MAX_FIELD)
    size = file.seek(0, 2)
    encoding = encoding_of(file)
    file.seek(0)
    text = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
    head = text.read(_SNIFFED)
    delimiter = _delimiter(head)
    text.seek(0)
    rows = Rows(output)
    try:
        lines = _lines(text)
        for number, cells in enumerate(csv.reader(lines, delimiter=delimiter)):
            rows.add(cells)
            if number % 1000 == 0:
                output.percent(file.tell(), size)
    except csv.Error as error:
        large = "larger than field limit" in str(error)
        raise Refused(*_LARGE) if large else Refused("BROKEN", "The rows are broken.") from error
    rows.end()
    text.detach()


_LARGE = ("TOO_LARGE", "A line of it is longer than a row may be.")


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_MAX_LINE):
        if len(line) >= _MAX_LINE:
            raise Refused(*_LARGE)
        yield line.replace("\0", "")


def _delimiter(head: str) -> str:
    lines = head.splitlines()
    sample = "\n".join(line[:2000] for line in (lines[:-1] or lines)[:20])
    try:
        return csv.Sniffer().sniff(sample, _DELIMITERS).delimiter
    except csv.Error:
        return max(_DELIMITERS, key=sample.partition("\n")[0].count)
