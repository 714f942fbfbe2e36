"""The most telling sentences of a conversation, by their words alone.

The centroid method: a sentence tells as much as the words that are frequent in the whole have a
part in it (Radev et al., Centroid-based summarization of multiple documents, 2004); one that says
what another said already is passed over (Carbonell and Goldstein, The use of MMR, 1998).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from services.history.domain.extract import pieces, words
from services.history.domain.personal import tells
from services.history.domain.sessions import Author, Message
from services.history.domain.summary import EXTRACTIVE, Finding, Line, Summary

MAX_SENTENCES = 4
_MAX_LOOKED_AT = 2_000
_MAX_FINDINGS = 20
# Shorter words are mostly those that every sentence has.
_SHORTEST = 4
_ALIKE = 0.5
_USUAL = 4
_FULL = 3


def extract(previous: Summary, messages: Sequence[Message]) -> Summary:
    """An overview made of sentences that were said; see `merge` for the rest of a summary."""
    lines = [*previous.overview]
    lines += [
        Line(piece, (message.message_id,)) for message in messages for piece in pieces(message.text)
    ]
    return Summary(overview=tuple(_most_telling(lines[-_MAX_LOOKED_AT:])), model=EXTRACTIVE)


def findings(messages: Sequence[Message]) -> list[Finding]:
    """What the user says of themselves and of what is theirs, and what was decided."""
    found = [
        Finding(piece, message.message_id)
        for message in messages
        if message.author is Author.USER
        for piece in pieces(message.text)
        if tells(piece)
    ]
    return found[:_MAX_FINDINGS]


def _most_telling(lines: Sequence[Line]) -> list[Line]:
    """A few lines, in the order in which they came."""
    bags = [
        frozenset(word for word in words(each.text) if len(word) >= _SHORTEST) for each in lines
    ]
    counts = Counter(word for bag in bags for word in bag)

    def score(at: int) -> float:
        # Long sentences have more of everything: the root takes back a part of it.
        return sum(math.log1p(counts[word]) for word in bags[at]) / math.sqrt(
            len(bags[at]) + _USUAL
        )

    # What has hardly a word of its own is said only where there is nothing else.
    full = [at for at, bag in enumerate(bags) if len(bag) >= _FULL] or range(len(lines))
    chosen: list[int] = []
    for at in sorted(full, key=lambda at: (-score(at), at)):
        if len(chosen) == MAX_SENTENCES:
            break
        if bags[at] and not any(_alike(bags[at], bags[other]) for other in chosen):
            chosen.append(at)
    return [lines[at] for at in sorted(chosen)]


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) > _ALIKE * min(len(one), len(other))
