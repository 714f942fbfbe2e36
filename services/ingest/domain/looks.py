"""What bytes look like: by how they begin, and where they are text by what else is known."""

from __future__ import annotations

import re

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ZIP = "application/zip"
CSV = "text/csv"
TSV = "text/tab-separated-values"
HTML = "text/html"
MARKDOWN = "text/markdown"
TEXT = "text/plain"
MAIL = "message/rfc822"
LOCKED_OFFICE = "application/x-ole-storage"
UNKNOWN = "application/octet-stream"
_BY_NAME = {
    "csv": CSV,
    "tsv": TSV,
    "tab": TSV,
    "html": HTML,
    "htm": HTML,
    "xhtml": HTML,
    "md": MARKDOWN,
    "markdown": MARKDOWN,
    "eml": MAIL,
    "txt": TEXT,
}
_BY_TYPE = {
    CSV: CSV,
    TSV: TSV,
    HTML: HTML,
    "application/xhtml+xml": HTML,
    MARKDOWN: MARKDOWN,
    "text/x-markdown": MARKDOWN,
    MAIL: MAIL,
}
_MAGIC = (
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", LOCKED_OFFICE),
)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]{1,60}:[ \t]")
_MAIL_HEADERS = re.compile(rb"^(from|received|return-path|mime-version|message-id):", re.I | re.M)
_WIDE = 4


def looks_like(head: bytes, said: str = "", name: str = "") -> str:
    """The media type of a file that begins so.

    Args:
        head: Its first bytes, some kilobytes of them.
        said: The media type that its sender says.
        name: Its name.
    """
    if b"%PDF-" in head[:1024]:
        return PDF
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if not _is_text(head):
        return UNKNOWN
    start = head[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or (
        start.startswith(b"<") and b"<html" in start
    ):
        return HTML
    if _HEADER.match(head) and _MAIL_HEADERS.search(head.partition(b"\n\n")[0]):
        return MAIL
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return _BY_NAME.get(ending) or _BY_TYPE.get(said.partition(";")[0].strip().lower()) or TEXT


def _is_text(head: bytes) -> bool:
    if head.startswith(_MARKS):
        return True
    if b"\0" not in head:
        # Control characters are no text; a few are, in listings of terminals.
        odd = sum(head.count(bytes((each,))) for each in (*range(1, 8), *range(14, 27)))
        return odd * 20 <= len(head)
    # UTF-16 without a mark: every other byte of most languages' text is nought.
    return any(head[offset::2].count(0) * _WIDE > len(head) for offset in (0, 1))
