"""HTTP/2 by hand (RFC 9113): frames as they are, however wrong, and headers uncompressed."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_CANCEL = 8


def frame(kind: int, flags: int = 0, stream: int = 0, content: bytes = b"") -> bytes:
    """A frame as it goes out."""
    size = struct.pack(">I", len(content))[1:]
    return size + struct.pack(">BBI", kind, flags, stream) + content


def headers(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A block of headers as literals that no table remembers (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs)


def reset(stream: int) -> bytes:
    """The end of a stream that is no longer wanted."""
    return frame(RST, 0, stream, struct.pack(">I", _CANCEL))


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    left, size = len(data) - 127, b"\x7f"
    while left >= 128:
        size += bytes([left & 127 | 128])
        left >>= 7
    return size + bytes([left]) + data


def get(path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The headers of a request."""
    return [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path), *more]


def ended(data: bytes, stream: int = 1) -> bool:
    """Whether a stream ends in these frames, by a whole reply or by a reset."""
    while len(data) >= 9:
        kind, flags, number = struct.unpack(">BBI", data[3:9])
        data = data[9 + int.from_bytes(data[:3], "big") :]
        whole = kind in (DATA, HEADERS) and flags & END_STREAM
        if number == stream and (kind == RST or whole):
            return True
    return False
