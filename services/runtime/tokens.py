"""Tokens, as models count text.

The count is that of OpenAI's `o200k_base` vocabulary, which comes in a package and is loaded when
it is first needed (0.7 s, 150 MB): models with other vocabularies differ by some percent, so leave
a margin. A text has at most as many tokens as it has bytes of UTF-8: where that bound is enough,
as it is for most conversations, nothing is loaded.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Protocol

# The encoder takes less than a million characters at a time.
_PIECE = 500_000


class _Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]: ...


@cache
def _encoding() -> _Encoding:
    with warnings.catch_warnings():
        # It reads its vocabularies by a function that Python 3.11 and 3.12 deprecate.
        warnings.simplefilter("ignore", DeprecationWarning)
        import bpe_openai

        encoding: _Encoding = bpe_openai.get_encoding("o200k_base")
    return encoding


def at_most(text: str) -> int:
    """A number of tokens that the text does not exceed; free."""
    return len(text.encode())


def count(text: str) -> int:
    """The number of tokens; about a microsecond each, so count long texts in a thread."""
    encode = _encoding().encode_ordinary
    return sum(len(encode(text[at : at + _PIECE])) for at in range(0, len(text), _PIECE))
