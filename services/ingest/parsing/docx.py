"""DOCX: headings, paragraphs and tables in their order."""

from __future__ import annotations

import re
from typing import BinaryIO

from docx import Document
from docx.table import Table
from docx.text.paragraph import Paragraph

from services.ingest.parsing.archives import checked
from services.ingest.parsing.records import Output

_LEVEL = re.compile(r"^heading (\d)$", re.IGNORECASE)


def read(file: BinaryIO, output: Output) -> None:
    """Read a DOCX.

    Raises:
        Refused: It is broken, locked or too large.
    """
    checked(file)
    file.seek(0)
    document = Document(file)
    output.called(document.core_properties.title)
    blocks = list(document.iter_inner_content())
    for place, block in enumerate(blocks):
        if isinstance(block, Table):
            _table(block, output)
        else:
            _paragraph(block, output)
        output.percent(place, len(blocks))


def _paragraph(paragraph: Paragraph, output: Output) -> None:
    style = paragraph.style.name if paragraph.style is not None else ""
    level = _LEVEL.match(style or "")
    if style == "Title":
        output.called(paragraph.text)
        output.text.heading(paragraph.text, 0)
    elif level:
        output.text.heading(paragraph.text, int(level[1]))
    elif (style or "").startswith("List"):
        output.text.text("- " + paragraph.text if paragraph.text.strip() else "")
    else:
        output.text.text(paragraph.text)


def _table(table: Table, output: Output) -> None:
    begun = False
    for row in table.rows:
        # A merged cell is there once for each place it takes.
        cells: list[str] = []
        last = None
        for cell in row.cells:
            if cell._tc is not last:
                cells.append(cell.text)
            last = cell._tc
        if begun:
            output.text.row(cells)
        else:
            output.text.table(cells)
            begun = True
    output.text.end_table()
