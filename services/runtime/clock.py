"""Time as it is stored: whole microseconds since 1970, in UTC."""

from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp

SECOND = 1_000_000


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def to_timestamp(microseconds: int) -> Timestamp:
    """The contract's form of a stored time."""
    return Timestamp(seconds=microseconds // SECOND, nanos=microseconds % SECOND * 1000)


def from_timestamp(timestamp: Timestamp) -> int:
    """The stored form of the contract's time."""
    return timestamp.seconds * SECOND + timestamp.nanos // 1000
