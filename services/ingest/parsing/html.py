"""HTML: its main content with headings, lists, code and tables; where none is found, all text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import lxml.etree
import lxml.html

from services.ingest.parsing.records import Output
from services.ingest.parsing.refusals import Refused
from services.ingest.parsing.text import decoded

_MAX_BYTES = 20_000_000
_MAX_DEPTH = 200
_MAX_ELEMENTS = 300_000
_FEW = 200
_SILENT = {"script", "style", "noscript", "template", "svg", "iframe", "object"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *("p", "div", "section", "article", "main", "ul", "ol", "li", "blockquote", "dl", "dt", "dd"),
    *("figure", "figcaption", "header", "footer", "nav", "aside", "form", "address", "details"),
    *("hr", "br", "body", "html", "center", "summary", "fieldset"),
}


def read(file: BinaryIO, output: Output) -> None:
    """Read a page.

    Raises:
        Refused: It is too large, or nested too deep.
    """
    data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise Refused("TOO_LARGE", "It is larger than a page may be.")
    whole(decoded(data), output)


def whole(text: str, output: Output) -> None:
    """Read a page that is text already.

    Raises:
        Refused: It is nested too deep, or has too many elements.
    """
    tree = _tree(text)
    if tree is None:
        return
    title = tree.findtext(".//title")
    output.called(title)
    main = _main(tree)
    chosen = main if main is not None else tree
    _walk(chosen, output)


def _tree(text: str) -> Any:
    text = text.replace("\0", "")
    if text.count("<") > 4 * _MAX_ELEMENTS:
        raise Refused("TOO_LARGE", "The page has too many elements.")
    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=False
    )
    try:
        tree = lxml.html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except lxml.etree.ParserError:
        return None  # there is no element in it
    except lxml.etree.XMLSyntaxError as error:
        raise Refused("TOO_LARGE", "The page is nested too deep.") from error
    _require_bounds(tree)
    return tree


def _require_bounds(tree: Any) -> None:
    depth = 0
    for count, (event, _) in enumerate(lxml.etree.iterwalk(tree, events=("start", "end"))):
        depth += 1 if event == "start" else -1
        if depth > _MAX_DEPTH or count > 2 * _MAX_ELEMENTS:
            raise Refused("TOO_LARGE", "The page is nested too deep, or has too many elements.")


def _main(tree: Any) -> Any:
    """The main content as a tree of its own; None where it is not found."""
    from copy import deepcopy

    import trafilatura

    # It changes what it is given, and reads what it did not find in the page's own language.
    found = trafilatura.bare_extraction(
        deepcopy(tree),
        include_comments=False,
        include_tables=True,
        include_formatting=True,
        favor_recall=True,
        with_metadata=False,
    )
    body = getattr(found, "body", None)
    if body is None:
        return None
    everything = len(" ".join(tree.text_content().split()))
    kept = len(" ".join("".join(body.itertext()).split()))
    return body if kept >= min(_FEW, everything // 4) else None


def _walk(tree: Any, output: Output) -> None:
    """Give the blocks of a tree in their order, in HTML's words or in TEI's."""
    writer = _Writer(output)
    writer.visit(tree)
    writer.flush()


class _Writer:
    def __init__(self, output: Output) -> None:
        self._output = output
        self._text: list[str] = []

    def flush(self, lead: str = "") -> None:
        text = " ".join("".join(self._text).split())
        self._text = []
        if text:
            self._output.text.text(lead + text)

    def visit(self, element: Any) -> None:
        """Give an element's blocks; what is open before it goes on in it where it is no block."""
        tag = element.tag if isinstance(element.tag, str) else ""
        rend = element.get("rend") if tag == "head" else None
        # What a page's head has is no text of it; TEI calls a heading so, and says of which rank.
        if tag in _SILENT or not tag or (tag == "head" and rend is None):
            return
        level = _HEADINGS.get(rend or "", 2) if tag == "head" else 0
        level = level or _HEADINGS.get(tag, 0)
        if level:
            self.flush()
            self._output.text.heading(_text(element), level)
        elif tag in ("pre", "code") and "\n" in _text(element, spaces=True).strip():
            self.flush()
            self._output.text.code(_text(element, spaces=True))
        elif tag == "table":
            self.flush()
            self._table(element)
        else:
            self._inside(element, tag)

    def _inside(self, element: Any, tag: str) -> None:
        is_block = tag in _BLOCKS or tag in ("list", "item", "lb", "quote", "row", "cell")
        if is_block:
            self.flush()
        self._text.append(element.text or "")
        for child in element:
            self.visit(child)
            self._text.append(child.tail or "")
        if is_block:
            self.flush("- " if tag in ("li", "item") else "")

    def _table(self, table: Any) -> None:
        begun = False
        for row in table.iter("tr", "row"):
            cells = [_text(cell) for cell in row.iterchildren("td", "th", "cell")]
            if not any(cells):
                continue
            if begun:
                self._output.text.row(cells)
            else:
                self._output.text.table(cells)
                begun = True
        self._output.text.end_table()


def _text(element: Any, *, spaces: bool = False) -> str:
    text = "".join(_pieces(element))
    return text if spaces else " ".join(text.split())


def _pieces(element: Any) -> Iterator[str]:
    for piece in element.itertext():
        yield str(piece)
