"""Sources: places that documents come from by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from services.ingest.domain.documents import Visibility
from services.runtime.errors import Aborted, InvalidRequest

MAX_SOURCES = 200


class Protocol(IntEnum):
    """How a mailbox is read; the numbers are the contract's."""

    IMAP = 1
    POP3 = 2


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox, without its password."""

    protocol: int
    host: str
    port: int
    user: str
    folder: str
    starttls: bool

    @property
    def port_or_usual(self) -> int:
        """Its port."""
        usual = {
            (Protocol.IMAP, False): 993,
            (Protocol.IMAP, True): 143,
            (Protocol.POP3, False): 995,
            (Protocol.POP3, True): 110,
        }
        return self.port or usual[Protocol(self.protocol), self.starttls]


@dataclass(frozen=True, slots=True)
class RestList:
    """A list over REST, without its headers; the others are JSON pointers."""

    url: str
    items: str
    item_id: str
    item_title: str
    item_text: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the machine."""

    path: str
    pattern: str
    remove_missing: bool


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A page or a file of the web."""

    url: str


Place = Mailbox | RestList | Folder | WebAddress
KINDS: Mapping[str, type[Place]] = {
    "mailbox": Mailbox,
    "rest": RestList,
    "folder": Folder,
    "web": WebAddress,
}


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a place needs and nobody reads again."""

    password: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceRun:
    """One look at a source. Times are microseconds."""

    start_time: int
    end_time: int | None = None
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a source shall be."""

    display_name: str
    place: Place
    secrets: Secrets
    schedule: str
    paused: bool
    collection: str
    visibility: Visibility


@dataclass(frozen=True, slots=True)
class Source:
    """A place that is looked at on a schedule."""

    source_id: str
    tenant_id: str
    user_id: str
    display_name: str
    place: Place
    sealed: bytes
    schedule: str
    paused: bool
    collection: str
    visibility: Visibility
    next_time: int | None
    last_run: SourceRun | None
    cursor: str
    create_time: int
    version: int
    asked: bool = False

    @property
    def etag(self) -> str:
        """Changes with it."""
        return str(self.version)


def require_source_etag(source: Source, etag: str) -> None:
    """Refuse a change to what somebody else changed.

    Raises:
        Aborted: The source is not as it was read.
    """
    if etag and etag != source.etag:
        raise Aborted("The source changed since it was read.", metadata={"etag": source.etag})


def at_pointer(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to; None where it leads nowhere."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, Sequence) and not isinstance(value, str) and name.isascii():
            at = int(name) if name.isdigit() else len(value)
            value = value[at] if at < len(value) else None
        else:
            return None
    return value


def require_pointer(path: str, pointer: str) -> None:
    """Refuse what is no JSON pointer.

    Raises:
        InvalidRequest: It does not begin with a slash.
    """
    if pointer and not pointer.startswith("/"):
        raise InvalidRequest.field(path, "must be a JSON pointer, such as /items")


_ANY = "**"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which paths below a folder are meant: `*` and `?` within a name, `**` for any folders.

    Matched part by part and step by step, so that no pattern takes longer than its length times
    the path's.
    """

    parts: tuple[str, ...]

    def matches(self, path: str) -> bool:
        """Whether a path is meant."""
        at = {0, *self._past(0)}
        for name in path.split("/"):
            following = set()
            for place in at:
                if place == len(self.parts):
                    continue
                if self.parts[place] == _ANY:
                    following |= {place, *self._past(place)}
                elif _name_matches(self.parts[place], name):
                    following |= {place + 1, *self._past(place + 1)}
            at = following
        return len(self.parts) in at

    def _past(self, place: int) -> set[int]:
        """The places behind the `**` that begin at one: they may also be no folder."""
        found = set()
        while place < len(self.parts) and self.parts[place] == _ANY:
            place += 1
            found.add(place)
        return found


def _name_matches(pattern: str, name: str) -> bool:
    """Whether a name is meant, by the greedy way with one step back (Krauss, 2008)."""
    at = place = 0
    star, resumed = -1, 0
    while at < len(name):
        if place < len(pattern) and pattern[place] == "*":
            star, resumed = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", name[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resumed += 1
            at, place = resumed, star + 1
        else:
            return False
    return not pattern[place:].strip("*")


def pattern_of(pattern: str) -> Pattern:
    """Which paths below a folder a pattern means; none is all."""
    return Pattern(tuple((pattern or _ANY).split("/")))
