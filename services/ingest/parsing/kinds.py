"""What a file is: by its bytes first, and where they are plain text by what its sender says."""

from __future__ import annotations

import importlib
from typing import BinaryIO

from services.ingest.domain.looks import (
    CSV,
    DOCX,
    HTML,
    MAIL,
    MARKDOWN,
    PDF,
    TEXT,
    TSV,
    XLSX,
    ZIP,
    looks_like,
)
from services.ingest.parsing.archives import checked
from services.ingest.parsing.records import Job, Output
from services.ingest.parsing.refusals import Refused

_HEAD = 65_536
_PARSERS = {
    PDF: "pdf",
    DOCX: "docx",
    XLSX: "xlsx",
    CSV: "tables",
    TSV: "tables",
    HTML: "html",
    MARKDOWN: "markdown",
    MAIL: "mail",
    TEXT: "text",
}


def read(job: Job, output: Output) -> None:
    """Read a file with the parser of its kind.

    Raises:
        Refused: It cannot be read.
    """
    with job.path.open("rb") as file:
        kind = looks_like(file.read(_HEAD), job.media_type, job.file_name)
        file.seek(0)
        if kind == ZIP:
            kind = _of_archive(file)
            file.seek(0)
        if kind not in _PARSERS:
            raise Refused("UNKNOWN_KIND", "Nothing here reads this kind of file.")
        # A parser that reads one kind does not pay for all.
        parser = importlib.import_module(f"services.ingest.parsing.{_PARSERS[kind]}")
        parser.read(file, output)
    output.done(kind)


def _of_archive(file: BinaryIO) -> str:
    with checked(file) as archive:
        names = set(archive.namelist())
    if "word/document.xml" in names:
        return DOCX
    if "xl/workbook.xml" in names:
        return XLSX
    raise Refused("UNKNOWN_KIND", "It is an archive, and of no kind that is read here.")
