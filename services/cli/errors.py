"""What the command says when it cannot do what was asked: what is wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import grpc
    from google.rpc.status_pb2 import Status

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "plexus"
# What to do about a reason, where the message does not say it.
_NEXT = {
    "UNAUTHENTICATED": "Log in with `plexus login`.",
    "BAD_CREDENTIALS": "Check both, or make an account with `plexus login --register`.",
    "BAD_REFRESH_TOKEN": "Log in with `plexus login`.",
    "REGISTRATION_CLOSED": "Ask the operator of this installation for an account.",
    "PERMISSION_DENIED": "Ask an admin of your tenant for a role that may do it.",
    "UNKNOWN_METHOD": "The server may be of another version: compare `plexus call --list`.",
    "SESSION_BUSY": "Wait for the other run, or end it with `plexus call agents/CancelRun`.",
}

_LISTS = {
    "agent": "plexus call agents/ListAgents",
    "session": "plexus call history/ListSessions",
}


class Failure(click.ClickException):
    """An error for a person: one or two sentences, and lines below them where there is more."""

    def __init__(self, message: str, *more: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.more = more
        self.exit_code = exit_code  # type: ignore[misc]  # click reads the instance's

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it to stderr."""
        lines = [f"Error: {self.message}", *(f"  {line}" for line in self.more)]
        click.echo("\n".join(lines), file=file, err=file is None)


class NoLogin(Failure):
    """There is no login, or it has ended."""


@dataclass(frozen=True)
class Problem:
    """What a call ended with, taken apart.

    Attributes:
        code: gRPC's name of the status, such as `NOT_FOUND`.
        reason: The contract's reason; empty where the error is not from Plexus, such as a
            connection that was refused.
        message: The same in words.
        metadata: Facts that go with the reason.
        violations: Field paths, and what is wrong with each.
        retry_after: Seconds until the same call may succeed.
    """

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Problem:
        """Take an RPC's error apart."""
        from google.rpc.status_pb2 import Status

        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS_KEY and isinstance(value, bytes):
                return cls._of_status(error.code().name, Status.FromString(value))
        return cls(error.code().name, "", error.details() or "")

    @classmethod
    def _of_status(cls, code: str, status: Status) -> Problem:
        from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        for detail in status.details:
            for message in (info, bad, retry):
                detail.Unpack(message)
        delay = retry.retry_delay
        return cls(
            code=code,
            reason=info.reason if info.domain == _DOMAIN else "",
            message=status.message,
            metadata=dict(info.metadata),
            violations=tuple((each.field, each.description) for each in bad.field_violations),
            retry_after=delay.seconds + delay.nanos / 1e9 or None,
        )

    @property
    def transient(self) -> bool:
        """Whether the connection or the server failed, and not the request."""
        if self.reason:
            return self.reason in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        # Without a reason it is the transport that speaks: refused, reset, cut, timed out.
        return self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED", "INTERNAL")

    def failure(self, url: str) -> Failure:
        """The same for a person."""
        if not self.reason and self.code == "UNAVAILABLE":
            return Failure(
                f"Plexus does not answer at {url}. Start it with `plexus up`, or name another "
                "installation with --url."
            )
        if not self.reason and self.code == "DEADLINE_EXCEEDED":
            return Failure("The call took longer than its deadline. Try again.")
        if not self.reason and self.transient:
            return Failure(f"The connection to {url} broke off. Try again.", self.message)
        words = self.message or "The server gave no reason."
        name = self.reason or self.code
        lines = [f"{where}: {what}" for where, what in self.violations]
        # With one violation the message says the same already.
        lines = [line for line in lines if line != self.message]
        lines += [f"{key}: {value}" for key, value in sorted(self.metadata.items())]
        if self.reason == "NOT_FOUND" and self.metadata.get("resource") in _LISTS:
            lines = [f"See which there are with `{_LISTS[self.metadata['resource']]}`."]
        if self.retry_after:
            lines.append(f"Try again in {self.retry_after:g} s.")
        elif self.reason in _NEXT:
            lines.append(_NEXT[self.reason])
        return Failure(f"{words} ({name})", *lines)
