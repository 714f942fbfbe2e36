"""Whether two memories are the same, and whether they say otherwise about the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from services.memory.domain.values import MAX_ATTRIBUTES, MAX_PROVENANCE, Content, Kind, Origin
from services.memory.domain.words import Said, likeness, mark, normal

# Sentences that differ in more than this are about different things, whatever their numbers.
_SAME_FRAME = 0.6
# Longer texts are the same to the letter or not at all, and only their attributes contradict: to
# compare their pairs of words would take too long where many are stored at once.
_LONG = 4_000
_said = lru_cache(maxsize=512)(Said.of)


def marks(content: Content, *, bands: bool = True) -> frozenset[int]:
    """Hashes by which others that may be the same, or say otherwise, are found.

    Args:
        content: What a memory says.
        bands: Whether also those that are alike are the same, and not those alone that say the
            same to the letter.
    """
    said = _said(content.text)
    found = {mark("text", said.words)}
    if bands and not _is_long(content):
        # Those with other numbers are never the same: they shall not be in the way.
        found |= {mark(band, said.numbers, said.negations) for band in said.bands}
    subject = normal(content.subject)
    if subject and content.kind == Kind.KNOWLEDGE:
        found |= {mark("subject", subject), mark("frame", subject, said.frame)}
        found |= {mark("attribute", subject, name) for name in content.attributes}
        if said.claim is not None:
            found.add(mark("claim", subject, said.claim[0]))
    return frozenset(found)


def same(old: Content, new: Content, least: float) -> bool:
    """Whether a new memory only repeats an old one.

    Args:
        old: What is there.
        new: What is to be stored.
        least: From which likeness they are the same; from 1 on only to the letter.
    """
    if not _about_the_same(old, new):
        return False
    first, second = _said(old.text), _said(new.text)
    if first.words == second.words:
        return True
    if (
        least >= 1
        or _is_long(old, new)
        or first.numbers != second.numbers
        or first.negations != second.negations
    ):
        return False
    return likeness(first, second) >= least


def _about_the_same(old: Content, new: Content) -> bool:
    """Whether they agree in everything but their words."""
    return (
        (old.kind, old.person) == (new.kind, new.person)
        and (old.valid_from, old.valid_until) == (new.valid_from, new.valid_until)
        and (not new.subject or normal(new.subject) == normal(old.subject))
        and all(old.attributes.get(name, value) == value for name, value in new.attributes.items())
        # What both know must fit one memory.
        and len(old.attributes.keys() | new.attributes.keys()) <= MAX_ATTRIBUTES
    )


def merged(old: Content, new: Content) -> Content:
    """What is kept of a memory that was stored again: its text, and all of what both know."""
    return replace(
        old,
        attributes={**new.attributes, **old.attributes},
        confidence=max(old.confidence, new.confidence),
        sensitivity=max(old.sensitivity, new.sensitivity),
        provenance=joined(old.provenance, new.provenance),
    )


def joined(first: Sequence[Origin], second: Sequence[Origin]) -> tuple[Origin, ...]:
    """Where a memory came from when it was stored again: each source once, the first time."""
    found: dict[tuple[str, str, int, int], Origin] = {}
    for origin in (*first, *second):
        found.setdefault(origin.source, origin)
    return tuple(found.values())[:MAX_PROVENANCE]


def contradict(first: Content, second: Content) -> bool:
    """Whether two memories of knowledge say otherwise about the same subject.

    They do where an attribute of both has two values, where one sentence has other numbers or a
    negation more than the other, and where what has one value is said to have two.
    """
    subject = normal(first.subject)
    if not subject or normal(second.subject) != subject or not _meet(first, second):
        return False
    if first.kind != Kind.KNOWLEDGE or second.kind != Kind.KNOWLEDGE:
        return False
    common = first.attributes.keys() & second.attributes.keys()
    if any(first.attributes[name] != second.attributes[name] for name in common):
        return True
    return not _is_long(first, second) and _turn(_said(first.text), _said(second.text))


def _turn(one: Said, other: Said) -> bool:
    """Whether two sentences cannot both hold, as far as their forms say."""
    turned = one.numbers != other.numbers or one.negations % 2 != other.negations % 2
    if turned and likeness(one, other) >= _SAME_FRAME:
        return True
    if one.claim is None or other.claim is None or one.claim[0] != other.claim[0]:
        return False
    # Who says more of the same does not say otherwise.
    first, second = set(one.claim[1]), set(other.claim[1])
    return turned or not (first <= second or second <= first)


def _is_long(*contents: Content) -> bool:
    return any(len(each.text) > _LONG for each in contents)


def _meet(first: Content, second: Content) -> bool:
    """Whether there is a moment at which both hold."""
    ends = [each.valid_until for each in (first, second) if each.valid_until is not None]
    begins = [each.valid_from for each in (first, second) if each.valid_from is not None]
    return not ends or not begins or max(begins) < min(ends)
