"""XLSX: each sheet as a page with a table, whose first row has the names of its columns."""

from __future__ import annotations

from datetime import datetime, time
from typing import BinaryIO

from openpyxl import load_workbook

from services.ingest.parsing.archives import checked
from services.ingest.parsing.records import Output
from services.ingest.parsing.tables import Rows

_MAX_SHEETS = 1_000
_MAX_COLUMNS = 1_000


def read(file: BinaryIO, output: Output) -> None:
    """Read a workbook.

    Raises:
        Refused: It is broken, locked or too large.
    """
    checked(file)
    file.seek(0)
    book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
    output.called(book.properties.title)
    sheets = book.worksheets[:_MAX_SHEETS]
    for number, sheet in enumerate(sheets, 1):
        output.page(number)
        output.text.heading(sheet.title, 1)
        # What a sheet says of its size need not be so.
        sheet.reset_dimensions()
        rows = Rows(output)
        for row in sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS):
            rows.add([_text(cell) for cell in row])
        rows.end()
        output.percent(number, len(sheets))


def _text(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return str(cell).lower()
        case float() if cell.is_integer() and abs(cell) < 1e15:
            return str(int(cell))
        case datetime() if cell.time() == time.min:
            return cell.date().isoformat()
        case datetime():
            return cell.isoformat(" ")
    return str(cell)
