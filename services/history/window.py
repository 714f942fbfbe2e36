"""What of a conversation fits a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.history.domain.sessions import Message

# No tokens of a usual vocabulary are longer on average, in any language.
BYTES_PER_TOKEN = 16


def fit(
    newest_first: Sequence[Message], max_tokens: int, count: Callable[[str], int]
) -> list[Message]:
    """The newest messages that fit together, oldest first: whole, without a gap, at least one."""
    chosen: list[Message] = []
    spent = 0
    for message in newest_first:
        spent += count(message.text)
        if chosen and spent > max_tokens:
            break
        chosen.append(message)
    return chosen[::-1]


def within(sizes: Sequence[tuple[int, int]], max_bytes: int) -> int:
    """How many of some messages, by place and size, fit together: at least one if there is one."""
    spent = 0
    for index, (_, size) in enumerate(sizes):
        spent += size
        if index and spent > max_bytes:
            return index
    return len(sizes)
