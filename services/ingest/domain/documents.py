"""Documents: what is said about them, and where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from services.runtime.errors import Aborted, AlreadyExists, InvalidRequest, ResourceExhausted

MAX_ATTRIBUTES = 32
MAX_BYTES = 1_073_741_824
PART_BYTES = 1_048_576


class State(IntEnum):
    """Where a document stands; the numbers are the contract's."""

    WAITING = 1
    READING = 2
    READY = 3
    FAILED = 4


class Visibility(IntEnum):
    """Who finds a document; the numbers are the contract's."""

    TENANT = 1
    OWNER = 2


class Reason(IntEnum):
    """Why a document could not be read; the numbers are the contract's."""

    UNKNOWN_KIND = 1
    BROKEN = 2
    LOCKED = 3
    TOO_LARGE = 4
    NO_TEXT = 5
    UNREACHABLE = 6
    ADDRESS_REFUSED = 7


class Unreadable(Exception):
    """A document cannot be read. The text is for a person."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a document could not be read, and when that was found."""

    reason: Reason
    message: str
    time: int


@dataclass(frozen=True, slots=True)
class Info:
    """What whoever brings a document says about it."""

    title: str = ""
    file_name: str = ""
    media_type: str = ""
    uri: str = ""
    collection: str = ""
    visibility: Visibility = Visibility.TENANT
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that are kept: where, how many, and what they are by their looks."""

    heap_id: str
    size: int
    sha256: str
    media_type: str


NOTHING = Content("", 0, "", "")


@dataclass(frozen=True, slots=True)
class Document:
    """A document. Times are microseconds.

    Attributes:
        said_title: What its bringer calls it; empty where its title was found in it.
        said_type: What its sender says that it is.
        url: The address it is fetched from; empty where its bytes were brought.
        http_etag: What its address called the bytes that are kept, for asking again.
        http_modified: When its address said that they changed.
        bytes_heap: Where its bytes are kept.
        passages_heap: Where its passages are kept; empty before there are any.
        read_sha256: Of which bytes its passages are.
        ticket: Rises with each wish to have it read; a reader with an old one has read in vain.
        attempts: How often somebody began to read it since it began to wait.
        depth: Below how many e-mails it was attached.
        version: Rises with each change that its callers see.
    """

    document_id: str
    tenant_id: str
    owner_id: str
    source_id: str
    parent_id: str
    title: str
    said_title: str
    file_name: str
    media_type: str
    said_type: str
    size: int
    sha256: str
    uri: str
    collection: str
    visibility: Visibility
    attributes: Mapping[str, str]
    state: State
    failure: Failure | None
    percent: int
    revision: int
    passage_count: int
    page_count: int
    create_time: int
    update_time: int
    url: str = ""
    http_etag: str = ""
    http_modified: str = ""
    bytes_heap: str = ""
    passages_heap: str = ""
    read_sha256: str = ""
    ticket: int = 1
    attempts: int = 0
    depth: int = 0
    version: int = 1

    @property
    def etag(self) -> str:
        """Changes with it."""
        return str(self.version)

    @property
    def space(self) -> str:
        """Among whose documents its uri is one alone: everyone's, or its owner's."""
        return space_of(self.visibility, self.owner_id)

    @property
    def ended(self) -> bool:
        """Whether nobody has it to read."""
        return self.state in (State.READY, State.FAILED)

    @property
    def info(self) -> Info:
        """What goes on to what is attached to it."""
        return Info(collection=self.collection, visibility=self.visibility)


def space_of(visibility: Visibility, owner_id: str) -> str:
    """See `Document.space`: a private document is never found by what another user brings."""
    return owner_id if visibility is Visibility.OWNER else ""


def key_of(uri: str) -> str:
    """What a uri is found by, short enough for an index; empty for none."""
    return hashlib.sha256(uri.encode()).hexdigest() if uri else ""


def title_of(info: Info, url: str) -> str:
    """What a document is called before it is read."""
    return info.title or info.file_name or url or info.uri or "Document"


def waiting(document: Document, now: int) -> Document:
    """A document that shall be read, or read again."""
    return replace(
        document,
        state=State.WAITING,
        failure=None,
        percent=0,
        attempts=0,
        ticket=document.ticket + 1,
        update_time=now,
        version=document.version + 1,
    )


def replaced(document: Document, info: Info, content: Content, url: str, now: int) -> Document:
    """A document with other bytes, or another address: its passages stay until they are read."""
    new = waiting(document, now)
    return replace(
        new,
        title=title_of(info, url),
        said_title=info.title,
        file_name=info.file_name,
        said_type=info.media_type,
        media_type=content.media_type or document.media_type,
        size=content.size,
        sha256=content.sha256,
        collection=info.collection,
        attributes=dict(info.attributes),
        url=url,
        http_etag="",
        http_modified="",
        bytes_heap=content.heap_id,
    )


def require_etag(document: Document, etag: str) -> None:
    """Refuse a change to what somebody else changed.

    Raises:
        Aborted: The document is not as it was read.
    """
    if etag and etag != document.etag:
        raise Aborted("The document changed since it was read.", metadata={"etag": document.etag})


def require_plain(path: str, text: str) -> None:
    """Refuse what a database cannot keep.

    Raises:
        InvalidRequest: There is a NUL in it.
    """
    if "\0" in text:
        raise InvalidRequest.field(path, "must not contain NUL characters")


def require_info(info: Info, path: str = "info.") -> None:
    """Refuse what cannot be kept about a document.

    Raises:
        InvalidRequest: There is a NUL in it.
    """
    for name in ("title", "file_name", "media_type", "uri"):
        require_plain(f"{path}{name}", getattr(info, name))
    for name, value in info.attributes.items():
        require_plain(f"{path}attributes[{name}]", value)


def uri_taken(uri: str) -> AlreadyExists:
    """The error where another document has the uri already, among those who would find it."""
    return AlreadyExists(
        "Another document has this uri.", reason="NAME_TAKEN", metadata={"name": uri[:200]}
    )


def too_many(what: str, limit: str, most: int) -> ResourceExhausted:
    """The error where a tenant has as many as it can have."""
    return ResourceExhausted(f"There are {most} {what} already.", metadata={"limit": limit})


def failed(document: Document, reason: Reason, message: str, now: int) -> Document:
    """A document that could not be read; what it held before it still holds."""
    return replace(
        document,
        state=State.FAILED,
        failure=Failure(reason, message, now),
        percent=0,
        update_time=now,
        version=document.version + 1,
    )


def as_before(document: Document, now: int) -> Document:
    """A document that has the bytes that were read already."""
    return replace(
        document,
        state=State.READY,
        failure=None,
        percent=0,
        update_time=now,
        version=document.version + 1,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading a document."""

    title: str
    media_type: str
    page_count: int
    passage_count: int
    heap_id: str


def ready(document: Document, read: Reading, now: int) -> Document:
    """A document with new passages."""
    return replace(
        as_before(document, now),
        title=document.said_title or read.title or document.title,
        media_type=read.media_type,
        page_count=read.page_count,
        passage_count=read.passage_count,
        passages_heap=read.heap_id,
        read_sha256=document.sha256,
        revision=document.revision + 1,
    )
