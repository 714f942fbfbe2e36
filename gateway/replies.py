"""What the gateway itself answers: the same errors, in the same shape, as the services'.

Envoy writes its own texts when it refuses. They are replaced, status by status, by a
google.rpc.Status with ErrorInfo: as JSON for REST, in the trailers for gRPC and gRPC-Web.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from plexus.errors.v1 import errors_pb2

from gateway.filters import HEALTH_PATH
from gateway.shapes import Json

DOMAIN = "plexus"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_REQUEST_ID = "%REQ(X-REQUEST-ID)%"
_TRANSCODED = "x-envoy-original-path"
_PREFIX = "ERROR_REASON_"
_Reason = errors_pb2.ErrorReason


@dataclass(frozen=True)
class Refusal:
    """One answer: for which HTTP status, with which gRPC code and reason, in which words."""

    status: int
    code: grpc.StatusCode
    reason: str
    message: str
    # EQ for this status alone, GE for it and all above.
    comparison: str = "EQ"
    # The HTTP status to answer with instead; 0 keeps the one that Envoy chose.
    answer: int = 0

    @property
    def number(self) -> int:
        """The number of the gRPC code."""
        return int(self.code.value[0])


def _refusal(
    status: int,
    code: grpc.StatusCode,
    reason: errors_pb2.ErrorReason.ValueType,
    message: str,
    comparison: str = "EQ",
    answer: int = 0,
) -> Refusal:
    name = _Reason.Name(reason).removeprefix(_PREFIX)
    return Refusal(status, code, name, message, comparison, answer)


_C = grpc.StatusCode
_LOGIN = "A valid token is required: log in again."
_LATE = "The call took longer than its deadline."
_AWAY = "The service cannot serve now; try again."
# The first that fits is taken, so the ranges come last.
REFUSALS = (
    _refusal(400, _C.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_REQUEST,
             "The request cannot be read."),
    _refusal(401, _C.UNAUTHENTICATED, _Reason.ERROR_REASON_UNAUTHENTICATED,
             _LOGIN),
    # A token for another audience, the only thing that Envoy forbids here.
    _refusal(403, _C.UNAUTHENTICATED, _Reason.ERROR_REASON_UNAUTHENTICATED,
             _LOGIN, answer=401),
    _refusal(404, _C.UNIMPLEMENTED, _Reason.ERROR_REASON_UNKNOWN_METHOD,
             "There is no such method or path."),
    _refusal(405, _C.UNIMPLEMENTED, _Reason.ERROR_REASON_UNKNOWN_METHOD,
             "There is no such method or path."),
    _refusal(408, _C.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_DEADLINE_EXCEEDED, _LATE),
    _refusal(413, _C.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_BODY_TOO_LARGE,
             "The body is larger than this installation takes."),
    _refusal(415, _C.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_REQUEST,
             "The type of the content is not one that is read here."),
    _refusal(429, _C.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_LIMIT_REACHED,
             "Too many requests; try again later."),
    _refusal(431, _C.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_LIMIT_REACHED,
             "The headers are larger than this installation takes."),
    _refusal(502, _C.UNAVAILABLE, _Reason.ERROR_REASON_UNAVAILABLE, _AWAY),
    _refusal(503, _C.UNAVAILABLE, _Reason.ERROR_REASON_UNAVAILABLE, _AWAY),
    _refusal(504, _C.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_DEADLINE_EXCEEDED, _LATE),
    _refusal(500, _C.INTERNAL, _Reason.ERROR_REASON_INTERNAL,
             "Something failed that should not.", "GE"),
    _refusal(400, _C.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_REQUEST,
             "The request cannot be served.", "GE"),
)  # fmt: skip


def local_replies() -> Json:
    """Envoy's `local_reply_config`."""
    mappers = [_probe(200, "ok\n"), _probe(503, "unavailable\n")]
    for refusal in REFUSALS:
        mappers += [_over_grpc(refusal), _over_rest(refusal)]
    return {"mappers": mappers}


def _probe(status: int, text: str) -> Json:
    """The plain answer to a probe of the gateway's health."""
    return {
        "filter": _both(_status(status), _header(":path", {"exact": HEALTH_PATH})),
        "body": {"inline_string": text},
    }


def _over_rest(refusal: Refusal) -> Json:
    metadata = {"request_id": _REQUEST_ID}
    if refusal.status == 400 and refusal.comparison == "EQ":
        # Where and how the JSON is wrong, in the transcoder's words; no other text is as harmless.
        metadata["detail"] = "%LOCAL_REPLY_BODY%"
    info = {
        "@type": _ERROR_INFO,
        "reason": refusal.reason,
        "domain": DOMAIN,
        "metadata": metadata,
    }
    body = {"code": refusal.number, "message": refusal.message, "details": [info]}
    return {
        "filter": _status(refusal.status, refusal.comparison),
        **({"status_code": refusal.answer} if refusal.answer else {}),
        "body_format_override": {
            "json_format": body,
            "content_type": "application/json",
            # What is refused for its headers has no request id yet; null would break the shape.
            "omit_empty_values": True,
        },
    }


def _over_grpc(refusal: Refusal) -> Json:
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN)
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=refusal.number, message=refusal.message, details=[detail])
    details = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
    return {
        "filter": _both(
            _status(refusal.status, refusal.comparison),
            _header("content-type", {"prefix": "application/grpc"}),
            # The transcoder makes a REST request look like gRPC, and leaves this behind.
            {"header_filter": {"header": {"name": _TRANSCODED, "present_match": False}}},
        ),
        # A reply of trailers alone, made here: Envoy's own knows fewer codes, and the filter for
        # gRPC-Web keeps only what looks like this.
        "status_code": 200,
        "body": {"inline_string": ""},
        "headers_to_add": [
            _set("grpc-status", str(refusal.number)),
            _set("grpc-message", refusal.message),
            _set("grpc-status-details-bin", details),
        ],
    }


def _set(name: str, value: str) -> Json:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _both(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def _status(value: int, comparison: str = "EQ") -> Json:
    # Envoy asks for a key by which the value could be changed at run time; nobody sets it.
    at = {"default_value": value, "runtime_key": f"plexus.{comparison}.{value}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": at}}}


def _header(name: str, match: Json) -> Json:
    return {"header_filter": {"header": {"name": name, "string_match": match}}}
