"""What the gateway itself answers: the same errors, in the same shape, as the services'.

Envoy writes its own texts when it refuses. They are replaced, status by status, by a
google.rpc.Status with ErrorInfo: as JSON for REST, in the trailers for gRPC and gRPC-Web.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from plexus.errors.v1 import errors_pb2

from gateway.filters import HEALTH_PATH
from gateway.headers import REST_HEADERS, added, replaced
from gateway.shapes import Json

DOMAIN = "plexus"
_TYPES = "type.googleapis.com/google.rpc."
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
    # Seconds after which the same call may succeed; 0 where that is not known.
    retry: int = 0

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
    retry: int = 0,
) -> Refusal:
    name = _Reason.Name(reason).removeprefix(_PREFIX)
    return Refusal(status, code, name, message, comparison, answer, retry)


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
             "This path has other methods: see the header `allow`."),
    _refusal(408, _C.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_DEADLINE_EXCEEDED, _LATE),
    _refusal(413, _C.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_BODY_TOO_LARGE,
             "The body is larger than this installation takes."),
    _refusal(415, _C.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_REQUEST,
             "The type of the content is not one that is read here."),
    _refusal(429, _C.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_RATE_LIMITED,
             "Too many calls a second; try again a little later.", retry=1),
    _refusal(431, _C.RESOURCE_EXHAUSTED, _Reason.ERROR_REASON_LIMIT_REACHED,
             "The headers are larger than this installation takes."),
    _refusal(502, _C.UNAVAILABLE, _Reason.ERROR_REASON_UNAVAILABLE, _AWAY),
    _refusal(503, _C.UNAVAILABLE, _Reason.ERROR_REASON_UNAVAILABLE, _AWAY, retry=1),
    _refusal(504, _C.DEADLINE_EXCEEDED, _Reason.ERROR_REASON_DEADLINE_EXCEEDED, _LATE),
    _refusal(500, _C.INTERNAL, _Reason.ERROR_REASON_INTERNAL,
             "Something failed that should not.", "GE"),
    _refusal(400, _C.INVALID_ARGUMENT, _Reason.ERROR_REASON_INVALID_REQUEST,
             "The request cannot be served.", "GE"),
)  # fmt: skip


def local_replies(retry: int = 1, foreign: str = "") -> Json:
    """Envoy's `local_reply_config`.

    Args:
        retry: Seconds that a caller waits who made too many calls.
        foreign: The paths of OpenAI's protocol, which has errors of its own form.
    """
    mappers = [_probe(200, "ok\n"), _probe(503, "unavailable\n"), _from_module()]
    for each in REFUSALS:
        refusal = replace(each, retry=retry) if each.status == 429 else each
        mappers += [_over_grpc(refusal)]
        mappers += [_foreign(refusal, foreign)] if foreign else []
        mappers += [_over_rest(refusal)]
    return {"mappers": mappers}


def _probe(status: int, text: str) -> Json:
    """The plain answer to a probe of the gateway's health."""
    return {
        "filter": _both(_status(status), _header(":path", {"exact": HEALTH_PATH})),
        "body": {"inline_string": text},
        "headers_to_add": added(REST_HEADERS),
    }


def _from_module() -> Json:
    """The refusal of a body by the module that was asked: it is an error in its words already."""
    return {
        "filter": _both(_status(400), {"response_flag_filter": {"flags": ["UAEX"]}}),
        "headers_to_add": added(REST_HEADERS),
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }


def _over_rest(refusal: Refusal) -> Json:
    metadata = {"request_id": _REQUEST_ID}
    if refusal.status == 400 and refusal.comparison == "EQ":
        # Where and how the JSON is wrong, in the transcoder's words; no other text is as harmless.
        metadata["detail"] = "%LOCAL_REPLY_BODY%"
    info = {
        "@type": f"{_TYPES}ErrorInfo",
        "reason": refusal.reason,
        "domain": DOMAIN,
        "metadata": metadata,
    }
    details: list[Json] = [info]
    headers = dict(REST_HEADERS)
    if refusal.retry:
        details.append({"@type": f"{_TYPES}RetryInfo", "retry_delay": f"{refusal.retry}s"})
        headers["retry-after"] = str(refusal.retry)
    body = {"code": refusal.number, "message": refusal.message, "details": details}
    return {
        "filter": _status(refusal.status, refusal.comparison),
        **({"status_code": refusal.answer} if refusal.answer else {}),
        "headers_to_add": added(headers),
        "body_format_override": {
            "json_format": body,
            "content_type": "application/json",
            # What is refused for its headers has no request id yet; null would break the shape.
            "omit_empty_values": True,
        },
    }


def _foreign(refusal: Refusal, paths: str) -> Json:
    """The same as OpenAI's clients expect it."""
    kinds = {401: "authentication_error", 403: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(refusal.status) or (
        "server_error" if refusal.status >= 500 else "invalid_request_error"
    )
    error = {"message": refusal.message, "type": kind, "code": refusal.reason.lower()}
    headers = dict(REST_HEADERS)
    if refusal.retry:
        headers["retry-after"] = str(refusal.retry)
    path = {"safe_regex": {"regex": paths}}
    # Behind the transcoder the path is the RPC's, and this one beside it.
    either = {"or_filter": {"filters": [_header(":path", path), _header(_TRANSCODED, path)]}}
    return {
        "filter": _both(_status(refusal.status, refusal.comparison), either),
        **({"status_code": refusal.answer} if refusal.answer else {}),
        "headers_to_add": added(headers),
        "body_format_override": {
            "json_format": {"error": error},
            "content_type": "application/json",
        },
    }


def _over_grpc(refusal: Refusal) -> Json:
    status = status_pb2.Status(code=refusal.number, message=refusal.message)
    facts = [error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN)]
    if refusal.retry:
        delay = duration_pb2.Duration(seconds=refusal.retry)
        facts.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for fact in facts:
        detail = any_pb2.Any()
        detail.Pack(fact)
        status.details.append(detail)
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
        "headers_to_add": replaced(
            {
                "grpc-status": str(refusal.number),
                "grpc-message": refusal.message,
                "grpc-status-details-bin": details,
            }
        ),
    }


def _both(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def _status(value: int, comparison: str = "EQ") -> Json:
    # Envoy asks for a key by which the value could be changed at run time; nobody sets it.
    at = {"default_value": value, "runtime_key": f"plexus.{comparison}.{value}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": at}}}


def _header(name: str, match: Json) -> Json:
    return {"header_filter": {"header": {"name": name, "string_match": match}}}
