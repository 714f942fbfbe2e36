"""Identifiers: a prefix, then 26 characters that sort by the time they were made."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A new identifier, such as `run_01jd2m…`: 48 bits of milliseconds and 80 random bits.

    The form is a ULID's (github.com/ulid/spec) in lower case.
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
