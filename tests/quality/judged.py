"""The judged set: its documents, its questions, and the plain text that quotes are taken from."""

from __future__ import annotations

import csv
import email
import email.policy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
KINDS = frozenset({"lookup", "paraphrase", "multi", "table", "date", "negative", "name"})

_SILENT = frozenset({"script", "style", "template"})


@dataclass(frozen=True, slots=True)
class Judgement:
    """A passage that helps with a question: 3 answers it, 2 does so partly, 1 is background."""

    document: str  # below tests/quality, with forward slashes
    quote: str
    grade: int

    @property
    def path(self) -> Path:
        return HERE / self.document


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and everything in the corpus that was judged to matter for it."""

    id: str
    question: str
    kind: str
    relevant: tuple[Judgement, ...]


def documents() -> list[Path]:
    """Every document of the corpus, in a stable order."""
    return sorted(path for path in CORPUS.rglob("*") if path.is_file())


def questions() -> list[Question]:
    """Every question, in the order of the file."""
    lines = (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [_question(json.loads(line)) for line in lines if line.strip()]


def plain_text(path: Path) -> str:
    """What a reader of the document sees: HTML without markup, mail with its decoded parts.

    The text of an HTML document has a line for each run of text between two tags, so that a quote
    found in it never crosses markup.
    """
    if path.suffix == ".html":
        reader = _Text()
        reader.feed(path.read_text(encoding="utf-8"))
        reader.close()
        return "\n".join(reader.lines)
    if path.suffix == ".eml":
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        return "\n\n".join(_parts(message))
    return path.read_text(encoding="utf-8")


def rows(path: Path) -> list[list[str]]:
    """The rows of a table, its header first."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _question(line: dict[str, object]) -> Question:
    relevant = line["relevant"]
    if not isinstance(relevant, list):
        raise TypeError(f"relevant of {line['id']} is not a list")
    return Question(
        id=str(line["id"]),
        question=str(line["question"]),
        kind=str(line["kind"]),
        relevant=tuple(
            Judgement(document=one["document"], quote=one["quote"], grade=one["grade"])
            for one in relevant
        ),
    )


def _parts(message: EmailMessage) -> Iterator[str]:
    """The headers a reader sees, then the text of the body and of each text attachment."""
    yield "\n".join(
        f"{name}: {message[name]}"
        for name in ("From", "To", "Cc", "Date", "Subject")
        if name in message
    )
    for part in message.walk():
        if part.get_content_maintype() == "text":
            yield str(part.get_content()).replace("\r\n", "\n")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT

    def handle_data(self, data: str) -> None:
        line = " ".join(data.split())
        if line and not self._silent:
            self.lines.append(line)
