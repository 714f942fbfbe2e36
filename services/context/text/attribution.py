"""What stands behind each sentence of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from services.context.domain.sources import Citation, Span
from services.context.text.sentences import sentences
from services.context.text.support import STRONG, Sources, Support, said

# Of a sentence that names its source, so much must be there: it says itself where it is from.
_NAMED = 0.3
# Fewer content words say too little to know where they are from.
_LEAST_STEMS = 3
_MOST_CITATIONS = 1_000
_MOST_SENTENCES = 1_000
_MOST_QUOTES = 200
_MARK = re.compile(r"\[(\d{1,3})\]")
# How the built-in model quotes: `From passage 2: “…”`.
_QUOTE = re.compile(r"From passage (\d{1,3}): “([^”]{1,5000})”")


def attribute(text: str, source_texts: Sequence[str]) -> list[Citation]:
    """The citations of a text, in its order: by marks `[1]`, by quotes, and by its words."""
    sources = Sources(source_texts)
    quotes = list(islice(_quotes(text, source_texts), _MOST_QUOTES))
    found = [
        *quotes,
        *(
            citation
            for span in _bounded(text)
            if not any(_overlap(span, quote.cited_in) for quote in quotes)
            for citation in _of_sentence(text, span, sources)
        ),
    ]
    found.sort(key=lambda each: (each.cited_in.start, each.cited_in.end))
    return found[:_MOST_CITATIONS]


def _bounded(text: str) -> Iterator[Span]:
    for number, span in enumerate(sentences(text)):
        if number == _MOST_SENTENCES:
            return
        yield span


def _quotes(text: str, source_texts: Sequence[str]) -> Iterator[Citation]:
    for match in _QUOTE.finditer(text):
        first = int(match[1]) - 1
        order = sorted(range(len(source_texts)), key=lambda index: index != first)
        for index in order:
            span = _find(match[2], source_texts[index])
            if span is not None:
                quote = source_texts[index][span.start : span.end]
                yield Citation(Span(match.start(2), match.end(2)), index, span, quote)
                break


def _find(quote: str, source: str) -> Span | None:
    """Where a quote stands, whatever white space is between its words."""
    bare = _MARK.sub(" ", quote, count=1) if quote.startswith("[") else quote
    pattern = r"\s+".join(map(re.escape, bare.split()))
    match = re.search(pattern, source) if pattern else None
    return Span(*match.span()) if match else None


def _of_sentence(text: str, span: Span, sources: Sources) -> Iterator[Citation]:
    sentence = text[span.start : span.end]
    says = said(sentence)
    named = [int(each) - 1 for each in dict.fromkeys(_MARK.findall(sentence))]
    if named:
        for index in named:
            if 0 <= index < len(sources.texts):
                # Better where numbers and denials agree, but its author says it is from there.
                found = sources.best(says, _NAMED, index) or sources.best(
                    says, _NAMED, index, strict=False
                )
                if found is not None:
                    yield _citation(span, found, sources)
    elif len(says.stems) >= _LEAST_STEMS:
        found = sources.best(says, STRONG)
        if found is not None:
            yield _citation(span, found, sources)


def _citation(cited_in: Span, support: Support, sources: Sources) -> Citation:
    span = support.span
    quote = sources.texts[support.source_index][span.start : span.end]
    return Citation(cited_in, support.source_index, span, quote)


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
