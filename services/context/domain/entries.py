"""What the index keeps of a passage or a memory: enough to find it, never enough to show it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from services.context.domain.conditions import (
    TENANT,
    AnyOf,
    Both,
    Condition,
    Either,
    Within,
    equal,
)

DOCUMENT = "document"
MEMORY = "memory"
# Later than any time; a number that a double holds exactly.
NEVER = float(2**53 - 1)
ALWAYS = -NEVER
_EVERYONE = "*"
_NAMESPACE = uuid.UUID("5b1f9a52-6a0e-4f0e-9d55-3c6c6f0f7a11")
_WORD = re.compile(r"\w+")
_MOST_WORDS = 64

Value = str | float | list[str]
Payload = dict[str, Value]
# What an attribute may be: a whole number comes apart from others, since it may be larger than a
# double holds.
Attribute = str | int | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to index.

    Attributes:
        entry_id: A UUID that the same thing always gets.
        text: What it is found by.
        payload: What it is filtered by, with the tenant.
    """

    entry_id: str
    text: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that was found, with its score in one ranking."""

    entry_id: str
    score: float
    payload: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class PassageFacts:
    """What is known of a passage and its document."""

    tenant_id: str
    document_id: str
    revision: int
    passage_id: str = ""
    text: str = ""
    title: str = ""
    headings: Sequence[str] = ()
    page: int = 0
    uri: str = ""
    collection: str = ""
    media_type: str = ""
    owner_id: str = ""
    private: bool = False
    time: int = 0
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What is known of a memory's version; times are microseconds, None where there is none."""

    tenant_id: str
    memory_id: str
    version_id: str
    space: str
    text: str
    kind: str = "knowledge"
    subject: str = ""
    person: str = ""
    sensitivity: int = 0
    since: int = 0
    until: int | None = None
    valid_from: int | None = None
    valid_until: int | None = None
    time: int = 0
    attributes: Mapping[str, Attribute] | None = None


def passage_entry(facts: PassageFacts) -> Entry:
    """A passage as it is indexed."""
    payload: Payload = {
        TENANT: facts.tenant_id,
        "kind": DOCUMENT,
        "passage_id": facts.passage_id,
        "document_id": facts.document_id,
        "revision": str(facts.revision),
        "readers": facts.owner_id if facts.private else _EVERYONE,
        "page": float(facts.page),
        "time": float(facts.time),
        "media_type": facts.media_type,
        "collection": facts.collection,
        **_worded("uri", facts.uri),
        **_attributes(facts.attributes or {}),
    }
    text = "\n".join(filter(None, (facts.title, *facts.headings, facts.text)))
    return Entry(_id(facts.tenant_id, facts.passage_id), text, _set(payload))


def memory_entry(facts: MemoryFacts) -> Entry:
    """A version of a memory as it is indexed."""
    payload: Payload = {
        TENANT: facts.tenant_id,
        "kind": MEMORY,
        "memory_id": facts.memory_id,
        "version_id": facts.version_id,
        "space": facts.space,
        "memory_kind": facts.kind,
        "person": facts.person,
        "sensitivity": float(facts.sensitivity),
        "time": float(facts.time),
        "since": float(facts.since),
        "until": _or(facts.until, NEVER),
        "valid_from": _or(facts.valid_from, ALWAYS),
        "valid_until": _or(facts.valid_until, NEVER),
        **_worded("subject", facts.subject),
        **_attributes(facts.attributes or {}),
    }
    # A version that is current again after another is an entry of its own.
    entry_id = _id(
        facts.tenant_id, facts.space, facts.memory_id, facts.version_id, str(facts.since)
    )
    return Entry(entry_id, "\n".join(filter(None, (facts.subject, facts.text))), _set(payload))


def readable(
    user_id: str, spaces: Sequence[str], at: int, *, past: bool, documents: bool = True
) -> Condition:
    """What a caller may find: documents of everyone and its own, memories of some spaces.

    Args:
        at: The moment at which memories must be current and hold, in microseconds.
        past: Whether that moment was asked for; else what is current is found.
        documents: Whether documents are looked at.
    """
    now = Within("until", gt=float(at)) if past else Within("until", gte=NEVER)
    passages = (equal("kind", DOCUMENT), AnyOf("readers", (_EVERYONE, user_id)))
    memories = (
        equal("kind", MEMORY),
        AnyOf("space", tuple(spaces)),
        *((Within("since", lte=float(at)),) if past else ()),
        now,
        Within("valid_from", lte=float(at)),
        Within("valid_until", gt=float(at)),
    )
    return Either((*((Both(passages),) if documents else ()), Both(memories)))


def attribute_key(name: str, kind: str) -> str:
    """The field of an attribute: as words (`w`), text (`s`) or number (`n`).

    Names hold dots and dashes, which an index takes for paths.
    """
    return f"{kind}{name.encode().hex()}"


def text_of(value: Attribute) -> str:
    """A value as it is compared for equality."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    return str(value)


def number_of(value: Attribute) -> float | None:
    """A value as it is compared by size: a number, or the microseconds of a moment."""
    if isinstance(value, bool):
        return None
    if isinstance(value, datetime):
        return value.timestamp() * 1_000_000
    if isinstance(value, str):
        return _number_in(value)
    number = float(value)
    return number if abs(number) <= NEVER else None


def moment(text: str) -> datetime | None:
    """A time as RFC 3339 writes it, with its offset."""
    if len(text) < 20 or text[4] != "-":
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def words_of(text: str) -> list[str]:
    """The words of a short text, by which `:` finds it."""
    return list(dict.fromkeys(_WORD.findall(text.casefold())))[:_MOST_WORDS]


def _number_in(text: str) -> float | None:
    if (at := moment(text)) is not None:
        return at.timestamp() * 1_000_000
    if len(text) > 32 or not text.isascii() or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= NEVER else None


def _attributes(attributes: Mapping[str, Attribute]) -> Payload:
    found: Payload = {}
    for name, value in attributes.items():
        found[attribute_key(name, "s")] = text_of(value)
        found[attribute_key(name, "w")] = words_of(text_of(value))
        number = number_of(value)
        if number is not None:
            found[attribute_key(name, "n")] = number
    return found


def _worded(name: str, text: str) -> Payload:
    return {name: text, f"{name}_words": words_of(text)}


def _set(payload: Payload) -> Payload:
    """Without what is empty, so that what is not there can be asked for."""
    return {key: value for key, value in payload.items() if value not in ("", [])}


def _or(value: int | None, instead: float) -> float:
    return instead if value is None else float(value)


def _id(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))
