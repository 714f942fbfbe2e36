"""What a parser and whoever started it tell each other: JSON, a line each.

A job goes in: `{"path", "folder", "file_name", "media_type", "depth", "cpu_seconds"}`. Records come
out: `{"passages": [[text, kind, headings, page, start, end], ...]}`, `{"percent": n}`,
`{"attached": {"path", "file_name", "media_type"}}`, and last either
`{"done": {"title", "media_type", "page_count"}}` or `{"failed": {"reason", "message"}}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.ingest.domain.chunks import Chunker
from services.ingest.domain.passages import Passage
from services.ingest.parsing.refusals import Refused

MAX_LINE = 8 * 1_048_576
_MAX_CHARACTERS = 50_000_000
_MAX_PASSAGES = 200_000
_TOGETHER = 100
MAX_ATTACHED = 100
MAX_DEPTH = 3
Send = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read, and what its sender says of it."""

    path: Path
    folder: Path
    file_name: str
    media_type: str
    depth: int


class Output:
    """Where a parser puts what it finds: bounded, whatever the file says."""

    def __init__(self, job: Job, send: Send) -> None:
        self._job = job
        self._send = send
        self._some: list[list[Any]] = []
        self._passages = 0
        self._percent = 0
        self._attached = 0
        self.text = Chunker(self._take)
        self.title = ""
        self.pages = 0

    def _take(self, passage: Passage) -> None:
        self._passages += 1
        if self._passages > _MAX_PASSAGES or self.text.length > _MAX_CHARACTERS:
            raise Refused("TOO_LARGE", "It has more text than a document may have.")
        self._some.append(
            [
                *(passage.text, int(passage.kind), passage.headings, passage.page),
                *(passage.start, passage.end),
            ]
        )
        if len(self._some) >= _TOGETHER:
            self._give()

    def _give(self) -> None:
        if self._some:
            self._send({"passages": self._some})
            self._some = []

    def page(self, number: int) -> None:
        """What follows is on this page."""
        self.pages = max(self.pages, number)
        self.text.page(number)

    def called(self, title: object) -> None:
        """What the document calls itself; the first name counts."""
        if isinstance(title, str) and not self.title:
            self.title = " ".join(title.replace("\0", "").split())[:500]

    def percent(self, done: float, of: float) -> None:
        """How far it is."""
        percent = min(99, int(100 * done / of)) if of else 0
        if percent > self._percent:
            self._percent = percent
            self._send({"percent": percent})

    def attach(self, data: bytes, file_name: str, media_type: str) -> None:
        """Something that is attached and is a document itself.

        Raises:
            Refused: There are too many, or they lie too deep in each other.
        """
        self._attached += 1
        if self._attached > MAX_ATTACHED:
            raise Refused("TOO_LARGE", f"It has more than {MAX_ATTACHED} attachments.")
        if self._job.depth >= MAX_DEPTH:
            raise Refused("TOO_LARGE", "Its attachments lie too deep in each other.")
        path = self._job.folder / f"attached-{self._attached}"
        path.write_bytes(data)
        self._send(
            {
                "attached": {
                    "path": str(path),
                    "file_name": file_name.replace("\0", "")[:255],
                    "media_type": media_type[:100],
                }
            }
        )

    def done(self, media_type: str) -> None:
        """The file is read.

        Raises:
            Refused: There was nothing in it.
        """
        self.text.end()
        if not self._passages and not self._attached:
            raise Refused("NO_TEXT", "There is no text in it.")
        self._give()
        title = self.title.encode("utf-8", "replace").decode()
        done = {"title": title, "media_type": media_type, "page_count": self.pages}
        self._send({"done": done})
