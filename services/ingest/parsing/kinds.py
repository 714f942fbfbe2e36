"""What a file is: by its bytes first, and where they are plain text by what its sender says."""

from __future__ import annotations

from typing import BinaryIO

from services.ingest.domain.looks import (
    CSV,
    DOCX,
    HTML,
    MAIL,
    MARKDOWN,
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
        _parse(kind, file, output)
    output.done(kind)


def _of_archive(file: BinaryIO) -> str:
    with checked(file) as archive:
        names = set(archive.namelist())
    if "word/document.xml" in names:
        return DOCX
    if "xl/workbook.xml" in names:
        return XLSX
    raise Refused("UNKNOWN_KIND", "It is an archive, and of no kind that is read here.")


def _parse(kind: str, file: BinaryIO, output: Output) -> None:
    # Each is imported where it is used: a parser that reads one kind does not pay for all.
    match kind:
        case "application/pdf":
            from services.ingest.parsing import pdf

            pdf.read(file, output)
        case _ if kind == DOCX:
            from services.ingest.parsing import docx

            docx.read(file, output)
        case _ if kind == XLSX:
            from services.ingest.parsing import xlsx

            xlsx.read(file, output)
        case _ if kind in (CSV, TSV):
            from services.ingest.parsing import tables

            tables.read(file, output, tabs=kind == TSV)
        case _ if kind == HTML:
            from services.ingest.parsing import html

            html.read(file.read(), output)
        case _ if kind == MARKDOWN:
            from services.ingest.parsing import markdown

            markdown.read(file.read(), output)
        case _ if kind == MAIL:
            from services.ingest.parsing import mail

            mail.read(file, output)
        case _ if kind == TEXT:
            from services.ingest.parsing import text

            text.read(file, output)
        case _:
            raise Refused("UNKNOWN_KIND", "Nothing here reads this kind of file.")
