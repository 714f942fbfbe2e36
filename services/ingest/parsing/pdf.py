"""PDF: the text of each page."""

from __future__ import annotations

from typing import BinaryIO

from pypdf import PdfReader
from pypdf.errors import DependencyError, LimitReachedError, PyPdfError

from services.ingest.parsing.records import Output
from services.ingest.parsing.refusals import Refused

_MAX_PAGES = 20_000


def read(file: BinaryIO, output: Output) -> None:
    """Read a PDF.

    Raises:
        Refused: It is broken, locked or too large.
    """
    try:
        _read(file, output)
    except DependencyError as error:
        raise Refused("LOCKED", "It is encrypted in a way that is not read here.") from error
    except LimitReachedError as error:
        raise Refused("TOO_LARGE", "What is packed in it is too large.") from error
    except PyPdfError as error:
        raise Refused("BROKEN", "The PDF is broken.") from error


def _read(file: BinaryIO, output: Output) -> None:
    reader = PdfReader(file)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Refused("LOCKED", "It is locked with a password.")
    count = len(reader.pages)
    if count > _MAX_PAGES:
        raise Refused("TOO_LARGE", f"It has more than {_MAX_PAGES} pages.")
    if reader.metadata is not None:
        output.called(reader.metadata.title)
    for number, page in enumerate(reader.pages, 1):
        output.page(number)
        output.text.text(_paragraphs(page.extract_text()))
        output.percent(number, count)


def _paragraphs(text: str) -> str:
    """The lines of a page, joined where a sentence goes on: a PDF has lines, not paragraphs."""
    lines: list[str] = []
    for line in map(str.strip, text.splitlines()):
        goes_on = bool(lines) and bool(line) and bool(lines[-1])
        if goes_on and lines[-1].endswith("-") and line[0].islower():
            lines[-1] = lines[-1][:-1] + line
        elif goes_on and line[0].islower():
            lines[-1] += " " + line
        else:
            lines.append(line)
    return "\n".join(lines)
