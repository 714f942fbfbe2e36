"""What goes through the pipes between the serving process and the index's: length, then JSON."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")
# More than any operation of ours has.
MAX_BYTES = 64 * 1024 * 1024
HEADER = _LENGTH.size
Message = dict[str, Any]


class BrokenFrame(Exception):
    """What came is no message of ours."""


def packed(message: Message) -> bytes:
    """A message as it goes out."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def length(header: bytes) -> int:
    """How many bytes follow a header.

    Raises:
        BrokenFrame: More than a message has.
    """
    (found,) = _LENGTH.unpack(header)
    if not 0 < found <= MAX_BYTES:
        raise BrokenFrame(f"a message of {found} bytes")
    return int(found)


def unpacked(body: bytes) -> Message:
    """A message as it came.

    Raises:
        BrokenFrame: It is none.
    """
    try:
        found = json.loads(body)
    except ValueError as error:
        raise BrokenFrame("no JSON") from error
    if not isinstance(found, dict):
        raise BrokenFrame("no message")
    return found


def read(stream: BinaryIO) -> Message | None:
    """The next message of a stream; None where it ended.

    Raises:
        BrokenFrame: It is no message of ours.
    """
    header = stream.read(HEADER)
    if len(header) < HEADER:
        return None
    body = stream.read(size := length(header))
    return unpacked(body) if len(body) == size else None
