"""The errors a module raises. The runtime turns each into a google.rpc.Status, once, for all RPCs.

A reason is a name of `plexus.errors.v1.ErrorReason` without its prefix; the contract says what a
caller can do about it. The message is for people and may reach anyone who may call the RPC: it
names no internals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from plexus.errors.v1.errors_pb2 import ErrorReason

_PREFIX = "ERROR_REASON_"
REASONS = frozenset(
    name.removeprefix(_PREFIX)
    for name in ErrorReason.keys()  # noqa: SIM118 - not a dict
)


class Code(IntEnum):
    """google.rpc.Code: what gRPC calls the status."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request: the field's path and what it must be."""

    field: str
    description: str


class PlexusError(Exception):
    """An error with a status, a reason and what a caller needs to act on it.

    Attributes:
        code: The status.
        reason: Why, as the contract names it.
        message: The same for people.
        metadata: Facts that go with the reason.
        retry_after: Seconds after which the same call may succeed, where that is known.
    """

    code: ClassVar[Code] = Code.INTERNAL
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason} is not an ErrorReason")
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after

    @property
    def reason_number(self) -> ErrorReason.ValueType:
        """The reason as the contract's number."""
        return ErrorReason.Value(_PREFIX + self.reason)


class InvalidRequest(PlexusError):
    """The request breaks the contract, or asks for what cannot be."""

    code = Code.INVALID_ARGUMENT
    default_reason = "INVALID_REQUEST"

    @classmethod
    def field(cls, path: str, description: str) -> InvalidRequest:
        """An error about one field."""
        return cls(f"{path}: {description}", violations=[Violation(path, description)])


class Unauthenticated(PlexusError):
    """Nobody who can be believed."""

    code = Code.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(PlexusError):
    """Somebody who may not."""

    code = Code.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class NotFound(PlexusError):
    """It is not there, or not this tenant's: the two look the same."""

    code = Code.NOT_FOUND
    default_reason = "NOT_FOUND"

    @classmethod
    def of(cls, resource: str) -> NotFound:
        """The error for an absent resource, such as `run`."""
        return cls(f"There is no such {resource}.", metadata={"resource": resource})


class AlreadyExists(PlexusError):
    """It is there already."""

    code = Code.ALREADY_EXISTS
    default_reason = "IDEMPOTENCY_KEY_REUSED"


class Aborted(PlexusError):
    """Somebody else was first: read again and decide."""

    code = Code.ABORTED
    default_reason = "STALE_ETAG"


class FailedPrecondition(PlexusError):
    """Not as things stand."""

    code = Code.FAILED_PRECONDITION
    default_reason = "REGISTRATION_CLOSED"


class ResourceExhausted(PlexusError):
    """A bound was reached."""

    code = Code.RESOURCE_EXHAUSTED
    default_reason = "LIMIT_REACHED"


class DeadlineExceeded(PlexusError):
    """It took too long."""

    code = Code.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Unavailable(PlexusError):
    """Not now."""

    code = Code.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class Internal(PlexusError):
    """A defect. The message says nothing; the log has the rest under the correlation id."""


# A module that is told to stop cancels its calls; whoever asked it may ask another.
_CANCELLED = 1
_BY_CODE: dict[int, type[PlexusError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        Aborted,
        FailedPrecondition,
        ResourceExhausted,
        DeadlineExceeded,
        Unavailable,
    )
}


def kind_of(code: int) -> type[PlexusError]:
    """The class for a status; `Internal` for those that have none."""
    return Unavailable if code == _CANCELLED else _BY_CODE.get(code, Internal)
