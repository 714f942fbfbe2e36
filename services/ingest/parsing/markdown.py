"""Markdown: its headings, paragraphs, lists, code and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.ingest.parsing.records import Output
from services.ingest.parsing.refusals import Refused
from services.ingest.parsing.text import decoded

_MAX_BYTES = 20_000_000
_MAX_NESTING = 20


def read(file: BinaryIO, output: Output) -> None:
    """Read Markdown.

    Raises:
        Refused: It is too large.
    """
    data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise Refused("TOO_LARGE", "It is larger than Markdown may be.")
    text = decoded(data).replace("\0", "")
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable("table")
    tokens = parser.parse(text)
    for at, token in enumerate(tokens):
        match token.type:
            case "heading_open":
                heading = _said(tokens[at + 1])
                if token.tag == "h1":
                    output.called(heading)
                output.text.heading(heading, int(token.tag[1:]))
            case "fence" | "code_block":
                output.text.code(token.content)
            case "table_open":
                _table(tokens, at, output)
            case "inline" if not _is_part(tokens, at):
                output.text.text(_bullet(tokens, at) + _said(token))
            case "html_block":
                output.text.text(_untagged(token.content))
        output.percent(at, len(tokens))


def _said(token: Token) -> str:
    """The text of an inline token, without its marks."""
    said: list[str] = []
    for child in token.children or ():
        if child.type in ("text", "code_inline", "image"):
            said.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            said.append("\n")
    return "".join(said)


def _is_part(tokens: Sequence[Token], at: int) -> bool:
    """Whether it belongs to a heading or to a table's cell, which take it themselves."""
    return at > 0 and tokens[at - 1].type in ("heading_open", "th_open", "td_open")


def _bullet(tokens: Sequence[Token], at: int) -> str:
    return "- " if at > 1 and tokens[at - 2].type == "list_item_open" else ""


def _table(tokens: Sequence[Token], at: int, output: Output) -> None:
    cells: list[str] = []
    for place in range(at + 1, len(tokens)):
        token = tokens[place]
        match token.type:
            case "table_close":
                break
            case "tr_open":
                cells = []
            case "inline":
                cells.append(_said(token))
            case "tr_close" if tokens[place - 1].type == "th_close":
                output.text.table(cells)
            case "tr_close":
                output.text.row(cells)
    output.text.end_table()


def _untagged(text: str) -> str:
    import re

    return re.sub(r"<[^<>]{0,2000}>", " ", text)
