"""How a document's text is cut into passages: by its structure, and by size.

The text is what its blocks say, one after the other, with an empty line after each and a line break
after each row of a table. A passage has about 250 tokens and at most 400, as far as its language
has sentences: neither a sentence nor a row is cut unless it is longer than that by itself. What is
short is joined with what comes before it under the same heading and on the same page. Passages do
not overlap, and nothing but headings and white space is between them: a heading is above the
passages that follow, and one with nothing below it is a passage itself. A sentence that a page's
end cuts in two counts to the page on which it begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.ingest.domain.passages import Kind, Passage

TARGET_TOKENS = 250
MAX_TOKENS = 400
_SMALL_TOKENS = 60
_HEADER_TOKENS = 100
_MAX_HEADING = 300
_MAX_HEADINGS = 8
_SENTENCE = re.compile(r"[.!?…][\"'»”’)\]]{0,3}\s+|[。！？]|\n\s*\n")
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
# The longest piece without white space, which is then cut anywhere.
_MAX_PIECE = 400
_ENDS = (".", "!", "?", "…", "。", "！", "？", ":", '"', "”", ")")


def estimate(text: str) -> int:
    """About how many tokens a text has: a quarter of its bytes in UTF-8, at least one a word.

    A tokenizer would count them for some hundred megabytes of memory in each process that cuts.
    """
    return max(len(text.encode()) // 4, text.count(" ") + 1)


def clean(text: str) -> str:
    """A text that every database and protocol takes: without NUL and halves of characters."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


@dataclass(slots=True)
class _Heading:
    level: int
    text: str
    start: int
    end: int
    bare: bool = True


@dataclass(slots=True)
class _Held:
    """What will be a passage; the next one may join it. `raw` begins at `start` of the text."""

    raw: str
    kind: Kind
    above: tuple[str, ...]
    page: int
    start: int
    tokens: int


class Chunker:
    """Takes blocks in their order and gives passages in theirs."""

    def __init__(self, take: Callable[[Passage], None]) -> None:
        """Begin a document.

        Args:
            take: Is given each passage.
        """
        self._take = take
        self._length = 0
        self._page = 0
        self._turned = False
        self._headings: list[_Heading] = []
        self._held: _Held | None = None
        self._open: list[tuple[str, int]] = []
        self._tokens = 0
        self._start = 0
        self._open_page = 0
        self._header: str | None = None
        self._has_header = False

    @property
    def length(self) -> int:
        """How many characters the text has so far."""
        return self._length

    def page(self, number: int) -> None:
        """What follows is on this page."""
        self._turned = number != self._page
        self._page = number

    def heading(self, text: str, level: int) -> None:
        """A heading."""
        text = " ".join(clean(text).split())
        if not text:
            return
        self._end_section()
        if self._headings and self._headings[-1].bare and level <= self._headings[-1].level:
            self._give_bare()
        while self._headings and self._headings[-1].level >= level:
            self._headings.pop()
        if self._headings:
            self._headings[-1].bare = False
        start = self._length
        self._length += len(text) + 2
        self._headings.append(_Heading(level, text, start, start + len(text)))

    def text(self, text: str) -> None:
        """A paragraph, or several."""
        self._add(Kind.TEXT, clean(text).strip(), _SENTENCE, "\n\n")

    def code(self, text: str) -> None:
        """Code."""
        self._end_section()
        self._add(Kind.CODE, clean(text).strip("\n"), _LINE, "\n\n")
        self._end_section(Kind.CODE)

    def table(self, columns: Sequence[str]) -> None:
        """A table begins; `columns` are its columns' names, and empty where it has none."""
        self._end_section()
        self._header, self._has_header = row_text(columns), False

    def row(self, cells: Sequence[str]) -> None:
        """A row of the table."""
        text = row_text(cells)
        if not text:
            return
        if self._header and not self._has_header:
            self._has_header = True
            self._unit(Kind.TABLE, self._header + "\n")
        self._begin_content()
        for piece in _joined(text + "\n"):
            self._unit(Kind.TABLE, piece)

    def end_table(self) -> None:
        """The table ends."""
        self._end_section(Kind.TABLE)
        self._header = None

    def end(self) -> None:
        """The document ends."""
        self._end_section()
        if self._headings and self._headings[-1].bare:
            self._give_bare()

    def _add(self, kind: Kind, text: str, border: re.Pattern[str], gap: str) -> None:
        if not text or text.isspace():
            return
        if self._turned and not (text[0].islower() and not self._ends_well()):
            self._flush(kind)
        self._turned = False
        self._begin_content()
        for part in _split(text + gap, border):
            for piece in _joined(part):
                self._unit(kind, piece)

    def _begin_content(self) -> None:
        if self._headings:
            self._headings[-1].bare = False

    def _unit(self, kind: Kind, piece: str) -> None:
        tokens = estimate(piece)
        full = self._tokens >= TARGET_TOKENS or self._tokens + tokens > MAX_TOKENS
        if self._open and full:
            self._flush(kind)
        if not self._open:
            self._start, self._open_page = self._length, self._page
        self._open.append((piece, tokens))
        self._tokens += tokens
        self._length += len(piece)

    def _ends_well(self) -> bool:
        return bool(self._open) and self._open[-1][0].rstrip().endswith(_ENDS)

    def _flush(self, kind: Kind = Kind.TEXT) -> None:
        """Make a passage of what is open."""
        if not self._open:
            return
        raw = "".join(piece for piece, _ in self._open)
        new = _Held(raw, kind, self._above(), self._open_page, self._start, self._tokens)
        self._open, self._tokens = [], 0
        held = self._held
        if (
            held is not None
            and min(new.tokens, held.tokens) < _SMALL_TOKENS
            and new.tokens + held.tokens <= MAX_TOKENS
            and held.kind is kind is Kind.TEXT
            and held.page == new.page
        ):
            held.raw += raw
            held.tokens += new.tokens
            return
        self._let_go()
        self._held = new

    def _let_go(self) -> None:
        held, self._held = self._held, None
        text = held.raw.strip() if held is not None else ""
        if held is None or not text:
            return
        start = held.start + len(held.raw) - len(held.raw.lstrip())
        end = start + len(text)
        if held.kind is Kind.TABLE and self._header and not text.startswith(self._header):
            text = f"{_within(self._header, _HEADER_TOKENS)}\n{text}"
        self._take(Passage(text, held.kind, held.above, held.page, start, end))

    def _end_section(self, kind: Kind = Kind.TEXT) -> None:
        self._flush(kind)
        self._let_go()

    def _give_bare(self) -> None:
        last = self._headings[-1]
        last.bare = False
        above = self._above()[:-1]
        self._take(Passage(last.text, Kind.TEXT, above, self._page, last.start, last.end))

    def _above(self) -> tuple[str, ...]:
        return tuple(each.text[:_MAX_HEADING] for each in self._headings[-_MAX_HEADINGS:])


def row_text(cells: Sequence[str]) -> str:
    """A row as text: its cells on one line, without the empty ones at its end."""
    texts = [" ".join(clean(each).split()) for each in cells]
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)


def _within(text: str, tokens: int) -> str:
    return text if estimate(text) <= tokens else text[: tokens * 2].rstrip() + "…"


def _joined(text: str) -> Iterator[str]:
    """A text whole, or where it is too long in pieces of words, as many together as fit."""
    if estimate(text) <= MAX_TOKENS:
        yield text
        return
    some: list[str] = []
    tokens = 0
    for word in _split(text, _WORD):
        for start in range(0, len(word), _MAX_PIECE):
            piece = word[start : start + _MAX_PIECE]
            size = estimate(piece)
            if some and tokens + size > MAX_TOKENS:
                yield "".join(some)
                some, tokens = [], 0
            some.append(piece)
            tokens += size
    yield "".join(some)


def _split(text: str, border: re.Pattern[str]) -> Iterator[str]:
    start = 0
    for found in border.finditer(text):
        if found.end() > start:
            yield text[start : found.end()]
            start = found.end()
    if start < len(text):
        yield text[start:]
