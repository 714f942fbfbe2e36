"""Documents of the set in formats that it is not kept in: Markdown as DOCX and as PDF."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import docx
from docx.document import Document
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.services.ingest.files import pdf

_COLUMNS, _LINES = 88, 48
_STYLES = {"bullet_list": "List Bullet", "ordered_list": "List Number"}


def as_docx(markdown: str) -> bytes:
    """With headings, paragraphs, lists and tables as a word processor has them."""
    made = docx.Document()
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    lists: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        kind = token.type.removesuffix("_open").removesuffix("_close")
        if kind in _STYLES:
            lists = [*lists, kind] if token.nesting > 0 else lists[:-1]
        elif token.type == "heading_open":
            made.add_heading(_said(tokens[at + 1]), int(token.tag[1:]))
            at += 1
        elif token.type == "table_open":
            at = _table(made, tokens, at)
        elif token.type in {"inline", "fence", "code_block"}:
            made.add_paragraph(_said(token), _STYLES[lists[-1]] if lists else None)
        at += 1
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def _table(made: Document, tokens: Sequence[Token], at: int) -> int:
    """Add a table; the place of its end."""
    rows: list[list[str]] = []
    while tokens[at].type != "table_close":
        if tokens[at].type == "tr_open":
            rows.append([])
        elif tokens[at].type == "inline":
            rows[-1].append(_said(tokens[at]))
        at += 1
    table = made.add_table(len(rows), len(rows[0]))
    for row, cells in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    return at


def as_pdf(markdown: str) -> bytes:
    """Lines of one size on pages; what is not ASCII is left out, for its font has no more."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    lines: list[str] = []
    for number, token in enumerate(tokens):
        if token.type in {"inline", "fence", "code_block"}:
            for line in _said(token).splitlines():
                lines += textwrap.wrap(line, _COLUMNS, break_on_hyphens=False)
            if tokens[number - 1].type not in {"td_open", "th_open"}:
                lines.append("")
    pages = [lines[at : at + _LINES] for at in range(0, len(lines), _LINES)]
    title = next((_said(each) for each in tokens if each.type == "inline"), "")
    return pdf((), title=_ascii(title), streams=[_stream(each) for each in pages])


def _stream(lines: Sequence[str]) -> bytes:
    shown = " ".join(f"({_ascii(each)}) Tj T*" for each in lines)
    return f"BT /F1 10 Tf 14 TL 60 740 Td {shown} ET".encode()


def _ascii(text: str) -> str:
    safe = text.encode("ascii", "ignore").decode()
    return safe.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _said(token: Token) -> str:
    if token.type != "inline":
        return token.content.rstrip("\n")
    return "".join(
        "\n" if each.type in {"softbreak", "hardbreak"} else each.content
        for each in token.children or ()
    )
