"""E-mail: who wrote what when; what is attached becomes a document of its own."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import BinaryIO, cast

from services.ingest.parsing.records import Output
from services.ingest.parsing.refusals import Refused

_MAX_BYTES = 60_000_000
_MAX_PARTS = 1_000
_MAX_NESTING = 20
_HEADERS = ("From", "To", "Cc", "Date")
_MAX_HEADER = 2_000


def read(file: BinaryIO, output: Output) -> None:
    """Read an e-mail.

    Raises:
        Refused: It is too large, or nested too deep.
    """
    data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise Refused("TOO_LARGE", "It is larger than an e-mail may be.")
    _require_shallow(data)
    message = email.message_from_bytes(data, policy=email.policy.default)
    subject = _header(message, "Subject")
    output.called(subject)
    if subject:
        output.text.heading(subject, 1)
    told = [f"{name}: {said}" for name in _HEADERS if (said := _header(message, name))]
    output.text.text("\n".join(told))
    _Parts(output).read(message)


def _require_shallow(data: bytes) -> None:
    """Refuse what is nested so deep that parsing it costs more than it can be worth.

    Each level of a multipart message has a boundary of its own, and each message within another a
    type that says so.
    """
    low = data.lower()
    if low.count(b"boundary=") > _MAX_PARTS or low.count(b"message/rfc822") > _MAX_PARTS:
        raise Refused("TOO_LARGE", "It has too many parts.")


class _Parts:
    """The parts of a message, each read or handed on."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._count = 0

    def read(self, part: EmailMessage, nesting: int = 0) -> None:
        """Read a part and what is in it."""
        self._count += 1
        if self._count > _MAX_PARTS or nesting > _MAX_NESTING:
            raise Refused("TOO_LARGE", "It has too many parts, or they lie too deep in each other.")
        kind = part.get_content_type()
        if kind == "message/rfc822":
            self._attach_message(part)
        elif kind == "multipart/alternative":
            self._alternative(part, nesting)
        elif part.is_multipart():
            for each in part.iter_parts():
                self.read(cast("EmailMessage", each), nesting + 1)
        elif part.is_attachment() or not kind.startswith("text/"):
            self._attach(part, kind)
        else:
            self._text(part, kind)

    def _alternative(self, part: EmailMessage, nesting: int) -> None:
        """The same said more than once: as a page if there is one, else as text."""
        some = [cast("EmailMessage", each) for each in part.iter_parts()]
        pages = [each for each in some if _holds(each, "text/html")]
        chosen = pages[-1:] or [each for each in some if _holds(each, "text/plain")][-1:]
        for each in chosen or some[-1:]:
            self.read(each, nesting + 1)

    def _text(self, part: EmailMessage, kind: str) -> None:
        text = _content(part)
        if kind == "text/html":
            from services.ingest.parsing import html

            html.whole(text, self._output)
        else:
            self._output.text.text(text)

    def _attach(self, part: EmailMessage, kind: str) -> None:
        data = part.get_payload(decode=True)
        if isinstance(data, bytes) and data and not part.get("Content-ID"):
            self._output.attach(data, part.get_filename() or "", kind)

    def _attach_message(self, part: EmailMessage) -> None:
        inner = part.get_payload()
        if isinstance(inner, list) and inner and isinstance(inner[0], Message):
            name = part.get_filename() or "message.eml"
            self._output.attach(inner[0].as_bytes(), name, "message/rfc822")


def _holds(part: EmailMessage, kind: str) -> bool:
    return any(each.get_content_type() == kind for each in part.walk())


def _content(part: EmailMessage) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    try:
        return data.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:
        from services.ingest.parsing.text import decoded

        return decoded(data)


def _header(message: EmailMessage, name: str) -> str:
    value = message.get(name)
    return " ".join(str(value).split())[:_MAX_HEADER] if value is not None else ""
