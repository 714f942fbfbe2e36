"""Where a query's words are in a text."""

from __future__ import annotations

from services.context.domain.sources import Span
from services.context.text.words import ENGLISH, language_of, query_terms, stem, words

_MOST = 100


def highlights(query: str, text: str) -> list[Span]:
    """The words of a text whose stems the query has; pairs of characters that touch are one."""
    wanted = set(query_terms(query))
    found = list(words(text))
    language = language_of(found) or ENGLISH
    spans: list[Span] = []
    for word in found:
        if stem(word.text, language) not in wanted:
            continue
        if spans and word.start < spans[-1].end:
            spans[-1] = Span(spans[-1].start, word.end)
        elif len(spans) == _MOST:
            break
        else:
            spans.append(Span(word.start, word.end))
    return spans
