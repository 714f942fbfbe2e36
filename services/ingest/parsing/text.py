"""Plain text."""

from __future__ import annotations

import re
from typing import BinaryIO

from services.ingest.parsing.records import Output
from services.ingest.parsing.refusals import Refused

_STEP = 1_048_576
_GUESSED_FROM = 65_536
_BORDER = re.compile(r"\n[ \t]*\n")
_MARKED = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def read(file: BinaryIO, output: Output) -> None:
    """Read plain text, a piece at a time."""
    import io

    encoding = encoding_of(file)
    size = file.seek(0, 2)
    file.seek(0)
    reader = io.TextIOWrapper(file, encoding=encoding, errors="replace")
    rest = ""
    while piece := reader.read(_STEP):
        # Up to the last border between paragraphs, but never more than some pieces.
        whole = rest + piece
        cut = max((found.end() for found in _BORDER.finditer(whole)), default=0)
        if not cut and len(whole) > 4 * _STEP:
            cut = len(whole)
        output.text.text(whole[:cut])
        rest = whole[cut:]
        output.percent(file.tell(), size)
    output.text.text(rest)
    reader.detach()


def encoding_of(file: BinaryIO) -> str:
    """The encoding of a file of text, by how it begins and, where that is not UTF-8, by a guess."""
    file.seek(0)
    head = file.read(_GUESSED_FROM)
    for mark, name in _MARKED:
        if head.startswith(mark):
            return name
    if _is_utf8(head):
        # What comes later may be otherwise; one pass over all of it tells.
        while piece := file.read(_STEP):
            if not _is_utf8(piece, begun=True):
                break
        else:
            return "utf-8"
    return _guessed(head)


def decoded(data: bytes) -> str:
    """Bytes as text."""
    import io

    return data.decode(encoding_of(io.BytesIO(data)), "replace")


def _guessed(head: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(head[:8192]).best()
    if best is None:
        raise Refused("UNKNOWN_KIND", "It is no text in an encoding that is known here.")
    return best.encoding


def _is_utf8(piece: bytes, *, begun: bool = False) -> bool:
    # A character may begin before the piece or end after it.
    start = next((at for at in range(4) if piece[at : at + 1] and piece[at] & 0xC0 != 0x80), 0)
    try:
        piece[start if begun else 0 :].decode("utf-8")
    except UnicodeDecodeError as error:
        return len(piece) - (error.start + (start if begun else 0)) < 4
    return True
