"""What is rendered says what it said."""

from __future__ import annotations

import io

import docx
import pypdf

from tests.quality.measures import holds
from tests.quality.rendering import as_docx, as_pdf

MARKDOWN = """# Pumps

The pump **stops** at `night` (mostly),
and starts again.

- once
- twice

| size | flow |
| ---- | ---- |
| 25   | 1.8  |

```
stop()
```
"""


def test_a_word_document_has_headings_lists_and_tables() -> None:
    made = docx.Document(io.BytesIO(as_docx(MARKDOWN)))
    told = {each.text: each.style.name for each in made.paragraphs if each.style}
    assert told["Pumps"] == "Heading 1"
    assert told["twice"] == "List Bullet"
    assert holds("\n".join(told), "stops at night (mostly), and starts again.")
    assert holds("\n".join(told), "stop()")
    (table,) = made.tables
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["size", "flow"],
        ["25", "1.8"],
    ]


def test_a_pdf_has_the_lines() -> None:
    read = pypdf.PdfReader(io.BytesIO(as_pdf(MARKDOWN + "\nOn and on.\n" * 60)))
    assert len(read.pages) > 1
    text = "\n".join(each.extract_text() for each in read.pages)
    assert holds(text, "stops at night (mostly), and starts again.")
    assert holds(text, "25 1.8")
    assert read.metadata is not None
    assert read.metadata.title == "Pumps"
