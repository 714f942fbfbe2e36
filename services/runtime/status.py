"""PlexusError to google.rpc.Status and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from services.runtime import log
from services.runtime.context import new_request_id
from services.runtime.errors import (
    REASONS,
    DeadlineExceeded,
    Internal,
    PlexusError,
    Violation,
    kind_of,
)

DOMAIN = "plexus"
DETAILS_KEY = "grpc-status-details-bin"
# Over REST the gateway makes a header of it; HTTP's clients know no RetryInfo.
_RETRY_KEY = "retry-after"
_GRPC_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def to_status(error: PlexusError) -> Status:
    """The status with all its details."""
    status = Status(code=int(error.code), message=error.message)
    details = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    for message in (*details, *_bad_request(error), *_retry_info(error)):
        packed = AnyMessage()
        packed.Pack(message)
        status.details.append(packed)
    return status


def _bad_request(error: PlexusError) -> list[BadRequest]:
    violations = [
        BadRequest.FieldViolation(field=each.field, description=each.description)
        for each in error.violations
    ]
    return [BadRequest(field_violations=violations)] if violations else []


def _retry_info(error: PlexusError) -> list[RetryInfo]:
    seconds = _retry_seconds(error)
    return [] if seconds is None else [RetryInfo(retry_delay=Duration(seconds=seconds))]


def _retry_seconds(error: PlexusError) -> int | None:
    return None if error.retry_after is None else max(1, math.ceil(error.retry_after))


async def abort(context: grpc.aio.ServicerContext[object, object], error: PlexusError) -> None:
    """End an RPC with the error. Always raises grpc's own abort error."""
    status, seconds = to_status(error), _retry_seconds(error)
    details = (DETAILS_KEY, status.SerializeToString())
    retry = () if seconds is None else ((_RETRY_KEY, str(seconds)),)
    await context.abort(
        _GRPC_CODES[status.code], status.message, trailing_metadata=(details, *retry)
    )


def from_status(status: Status) -> PlexusError:
    """The error that a status stands for; one from elsewhere keeps its code alone."""
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            detail.Unpack(message)
    known = info.domain == DOMAIN and info.reason in REASONS
    return kind_of(status.code)(
        status.message if known else "Another module did not answer as it should.",
        reason=info.reason if known else None,
        metadata=info.metadata if known else None,
        violations=[Violation(each.field, each.description) for each in bad.field_violations],
        retry_after=retry.retry_delay.seconds or None,
    )


def from_rpc_error(error: grpc.aio.AioRpcError) -> PlexusError:
    """The error that another module ended a call with."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(Status.FromString(value))
    return from_status(Status(code=error.code().value[0], message=error.details() or ""))


@contextmanager
def remote_errors() -> Iterator[None]:
    """Raise what another module answered as the PlexusError that it raised there."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


def as_plexus_error(error: Exception) -> PlexusError:
    """What the caller gets for an exception; an unexpected one's text goes to the log alone."""
    if isinstance(error, PlexusError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("The call took longer than its deadline.")
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    correlation = new_request_id()
    log.get(__name__).error("unexpected_error", correlation_id=correlation, exc_info=error)
    return Internal(
        "Something failed that should not. The operator finds it in the log by its correlation id.",
        metadata={"correlation_id": correlation},
    )
