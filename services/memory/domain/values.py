"""Memories, their versions, and the commits that hold them. Times are microseconds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal

from services.runtime.errors import InvalidRequest

MAIN = "main"
MAX_PROVENANCE = 100
MAX_ATTRIBUTES = 32  # Also of what was merged, or changed again and again.
HALF_LIFE = 30 * 24 * 3600 * 1_000_000
LIKENESS = 0.9
# Of a memory that was stored and never used.
FIRST_STRENGTH = 0.5
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
_HASH_BYTES = 20

# An attribute's kind and value: text, integer, number, truth, or time.
Attribute = tuple[str, str | int | float | bool]


class Kind(IntEnum):
    """What a memory is; the numbers are the contract's."""

    KNOWLEDGE = 1
    EXPERIENCE = 2


class Sensitivity(IntEnum):
    """Who may be told; the numbers are the contract's, and higher is more sensitive."""

    PUBLIC = 1
    INTERNAL = 2
    CONFIDENTIAL = 3


class Outcome(IntEnum):
    """What became of a record; the numbers are the contract's."""

    ADDED = 1
    CHANGED = 2
    MERGED = 3
    UNCHANGED = 4
    PROPOSED = 5


class ProposalState(IntEnum):
    """Where a proposal stands; the numbers are the contract's."""

    WAITING = 1
    ACCEPTED = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a memory came from; `start` and `end` are of a document alone."""

    kind: Literal["run", "message", "document", "person"]
    id: str
    time: int
    start: int = 0
    end: int = 0

    @property
    def source(self) -> tuple[str, str, int, int]:
        """What makes two of them the same."""
        return (self.kind, self.id, self.start, self.end)


@dataclass(frozen=True, slots=True)
class Content:
    """What a memory says, in one of its versions."""

    text: str
    kind: Kind = Kind.KNOWLEDGE
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    subject: str = ""
    person: str = ""
    confidence: float = 1.0
    sensitivity: Sensitivity = Sensitivity.INTERNAL
    provenance: tuple[Origin, ...] = ()
    valid_from: int | None = None
    valid_until: int | None = None

    def to_json(self) -> str:
        """As it is kept, and hashed."""
        values = {
            "text": self.text,
            "kind": self.kind.value,
            "attributes": dict(self.attributes),
            "subject": self.subject,
            "person": self.person,
            "confidence": self.confidence,
            "sensitivity": self.sensitivity.value,
            "provenance": [(o.kind, o.id, o.time, o.start, o.end) for o in self.provenance],
            "valid_from": self.valid_from,
            "valid_until": self.valid_until,
        }
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Content:
        """As it was kept."""
        values: dict[str, Any] = json.loads(text)
        values["kind"] = Kind(values["kind"])
        values["sensitivity"] = Sensitivity(values["sensitivity"])
        values["attributes"] = {name: tuple(each) for name, each in values["attributes"].items()}
        values["provenance"] = tuple(Origin(*each) for each in values["provenance"])
        return cls(**values)

    def check(self, path: str) -> None:
        """Refuse what cannot be kept.

        Raises:
            InvalidRequest: Naming the field.
        """
        if len(self.attributes) > MAX_ATTRIBUTES:
            raise InvalidRequest.field(f"{path}attributes", f"at most {MAX_ATTRIBUTES} are kept")
        texts = [("text", self.text), ("subject", self.subject), ("person", self.person)]
        for name, (_, value) in self.attributes.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidRequest.field(f"{path}attributes[{name}].number", "must be finite")
            texts.append((f"attributes[{name}].text", value if isinstance(value, str) else ""))
        texts += [("provenance", origin.id) for origin in self.provenance]
        for name, value in texts:
            require_storable(f"{path}{name}", value)
        if not self.text.strip():
            raise InvalidRequest.field(f"{path}text", "must say something")
        begin, end = self.valid_from, self.valid_until
        if begin is not None and end is not None and end <= begin:
            raise InvalidRequest.field(f"{path}valid_until", "must be after valid_from")
        for origin in self.provenance:
            if origin.end < origin.start:
                raise InvalidRequest.field(f"{path}provenance", "must end behind its start")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a memory; `create_time` is when the memory was first stored.

    Its name is a hash of what it says, made where it is not known.
    """

    memory_id: str
    content: Content
    create_time: int
    update_time: int
    version_id: str = ""

    def __post_init__(self) -> None:
        """Name it."""
        if self.version_id:
            return
        said = f"{self.memory_id}\n{self.create_time}\n{self.content.to_json()}"
        object.__setattr__(self, "version_id", f"ver_{_hash(said).hex()}")

    def saying(self, content: Content, now: int) -> Version:
        """The version after it."""
        return replace(self, content=content, update_time=now, version_id="")


@dataclass(frozen=True, slots=True)
class Memory:
    """A version as it is read: in its space, with what says otherwise there, and its strength."""

    version: Version
    space: str
    contradicts: tuple[str, ...]
    strength: float


@dataclass(frozen=True, slots=True)
class Record:
    """Something to store; with a `memory_id` as a new version of that memory."""

    content: Content
    memory_id: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a record."""

    memory_id: str
    outcome: Outcome
    version_id: str = ""
    contradicts: tuple[str, ...] = ()
    proposal_id: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a space keeps, and how."""

    keep_versions: int | None = None
    half_life: int | None = None
    review: bool = False
    merge_likeness: float | None = None

    @property
    def likeness(self) -> float:
        """From which likeness two memories are the same."""
        return LIKENESS if self.merge_likeness is None else self.merge_likeness


@dataclass(frozen=True, slots=True)
class Space:
    """A space."""

    space: str
    policy: Policy
    members: tuple[str, ...]
    create_time: int
    etag: int
    head: str = ""
    memory_count: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit; `root` is its tree's, empty where that has nothing."""

    space: str
    branch: str
    parents: tuple[str, ...]
    root: str
    count: int
    message: str
    author_id: str
    create_time: int
    added: int
    changed: int
    removed: int
    pruned: bool = False
    commit_id: str = ""

    def named(self) -> Commit:
        """With its name, a hash of all this."""
        return replace(self, commit_id=f"cmt_{_hash(json.dumps(asdict(self))).hex()}")


@dataclass(frozen=True, slots=True)
class Ref:
    """A branch or a tag."""

    name: str
    commit_id: str
    create_time: int


@dataclass(frozen=True, slots=True)
class At:
    """A point of a space's history; nothing set is the head of `main`."""

    branch: str = ""
    tag: str = ""
    commit_id: str = ""
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """For which time a version is current on `main`, and its place in the feed."""

    tenant_id: str
    space: str
    memory_id: str
    version_id: str
    since: int
    until: int | None
    since_commit: str
    until_commit: str
    position: int
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something that waits for a person, or that one decided about."""

    proposal_id: str
    space: str
    memory_id: str
    record: Record
    state: ProposalState
    create_time: int
    proposed_by: str
    decided_by: str = ""


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erasure of what is about a person."""

    erasure_id: str
    tenant_id: str
    person: str
    requested_by: str
    create_time: int
    erased_versions: int = 0
    verified_places: int = 0
    end_time: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What memories must be to be found."""

    kind: Kind | None = None
    subject: str = ""
    person: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    min_confidence: float = 0.0
    valid_at: int | None = None
    max_sensitivity: Sensitivity = Sensitivity.CONFIDENTIAL

    def takes(self, content: Content) -> bool:
        """Whether a memory is one of them."""
        return (
            self.kind in (None, content.kind)
            and self.subject in ("", content.subject)
            and self.person in ("", content.person)
            and all(content.attributes.get(k) == v for k, v in self.attributes.items())
            and content.confidence >= self.min_confidence
            and content.sensitivity <= self.max_sensitivity
            and (self.valid_at is None or holds(content, self.valid_at))
        )


def holds(content: Content, moment: int) -> bool:
    """Whether it holds at a moment."""
    begun = content.valid_from is None or content.valid_from <= moment
    return begun and (content.valid_until is None or moment < content.valid_until)


def require_storable(path: str, value: str) -> None:
    """Refuse the one character that PostgreSQL does not take.

    Raises:
        InvalidRequest: It is in the text.
    """
    if "\0" in value:
        raise InvalidRequest.field(path, "must have no NUL characters")


def key_of(memory_id: str) -> bytes | None:
    """A memory's key in trees, which sort as the ids do; None where there can be no such memory."""
    prefix, _, letters = memory_id.partition("_")
    if prefix != "mem" or len(letters) != 26 or any(each not in _DIGITS for each in letters):
        return None
    value = 0
    for each in letters:
        value = value << 5 | _DIGITS[each]
    return value.to_bytes(16, "big") if value >> 128 == 0 else None


def memory_of(key: bytes) -> str:
    """The id of the memory with a key."""
    value = int.from_bytes(key, "big")
    return "mem_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def version_of(value: bytes) -> str:
    """The version that a tree names."""
    return f"ver_{value.hex()}"


def value_of(version_id: str) -> bytes:
    """A version as trees name it."""
    return bytes.fromhex(version_id[4:])


def faded(strength: float, since: int, now: int, half_life: int) -> float:
    """What is left of a strength: half of it after each half-life."""
    return float(strength * 0.5 ** (max(0, now - since) / half_life))


def used(strength: float) -> float:
    """The strength after a use: half of what lacks to 1 is won."""
    return strength + (1 - strength) / 2


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest()
