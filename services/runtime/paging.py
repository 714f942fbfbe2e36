"""Page tokens: where the next page begins, in a form that callers do not take apart."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from services.runtime.errors import InvalidRequest

DEFAULT_SIZE = 50
_MAX_INTEGER = 2**63 - 1
Key = str | int
_A = TypeVar("_A", bound=Key)
_B = TypeVar("_B", bound=Key)
_Row = TypeVar("_Row")


def page_size(asked: int) -> int:
    """How many to return; the contract's bounds hold already."""
    return asked or DEFAULT_SIZE


def cut(
    found: list[_Row], size: int, keys: Callable[[_Row], Sequence[Key]]
) -> tuple[list[_Row], str]:
    """A page and the token of the next, out of one row more than a page has, if there are so many.

    Args:
        found: Rows in their order.
        size: How many a page has.
        keys: What a row is sorted by.
    """
    if len(found) <= size:
        return found, ""
    return found[:size], encode(keys(found[size - 1]))


def encode(keys: Sequence[Key]) -> str:
    """A token for the page after a row with these sort keys."""
    return base64.urlsafe_b64encode(json.dumps(list(keys)).encode()).decode().rstrip("=")


@overload
def decode(token: str, kind: type[_A], /) -> tuple[_A] | None: ...
@overload
def decode(token: str, kind: type[_A], other: type[_B], /) -> tuple[_A, _B] | None: ...
def decode(token: str, /, *kinds: Any) -> tuple[Key, ...] | None:
    """The sort keys in a token, of these types; None for the first page.

    Raises:
        InvalidRequest: This program did not make the token.
    """
    if not token:
        return None
    try:
        keys = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        keys = None
    good = isinstance(keys, list) and [type(key) for key in keys] == list(kinds)
    if not good or not all(map(_storable, keys)):
        raise InvalidRequest.field("page_token", "must be a next_page_token of this list")
    return tuple(keys)


def _storable(key: Key) -> bool:
    """Whether a database takes it: 64 bits, and no half of a character."""
    if isinstance(key, int):
        return abs(key) <= _MAX_INTEGER
    return not any("\ud800" <= character <= "\udfff" for character in key)
