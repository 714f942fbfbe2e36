"""Answers of OpenAI's protocol, written."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from services.interop.domain.values import (
    Finished,
    Named,
    Started,
    Text,
    ToolCall,
    ToolDelta,
    Usage,
)
from services.runtime.errors import Code, PlexusError

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
_STATUS = {
    Code.INVALID_ARGUMENT: (400, "invalid_request_error"),
    Code.FAILED_PRECONDITION: (400, "invalid_request_error"),
    Code.UNAUTHENTICATED: (401, "authentication_error"),
    Code.PERMISSION_DENIED: (403, "permission_error"),
    Code.NOT_FOUND: (404, "invalid_request_error"),
    Code.ALREADY_EXISTS: (409, "invalid_request_error"),
    Code.ABORTED: (409, "conflict_error"),
    Code.RESOURCE_EXHAUSTED: (429, "rate_limit_error"),
    Code.UNAVAILABLE: (503, "server_error"),
    Code.DEADLINE_EXCEEDED: (504, "server_error"),
}
_CHUNK = "chat.completion.chunk"


def error_of(error: PlexusError) -> tuple[int, Json]:
    """The HTTP status of an error, and its body."""
    status, kind = _STATUS.get(error.code, (500, "server_error"))
    code = error.reason.lower()
    if error.reason == "BUDGET_SPENT":
        code = kind = "insufficient_quota"
    elif error.reason == "UNKNOWN_MODEL":
        code = "model_not_found"
    param = error.violations[0].field if error.violations else None
    if error.code is Code.NOT_FOUND and param == "previous_response_id":
        status, code = 400, "previous_response_not_found"
    return status, {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


def line(value: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + written(value) + b"\n\n"


def written(value: Json) -> bytes:
    """JSON, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def completion(
    started: Started, created: int, text: str, calls: Sequence[ToolCall], finished: Finished
) -> Json:
    """A whole chat completion."""
    message: Json = {"role": "assistant", "content": text or None if calls else text}
    message["refusal"] = None
    if calls:
        message["tool_calls"] = [_call(each) for each in calls]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finished.reason,
    }
    return {
        **_head(started, created, "chat.completion"),
        "choices": [choice],
        "usage": usage_of(finished.usage),
    }


class Chunks:
    """The chunks of one chat completion.

    Most of a chunk is the same in all of them, so that it is written once.
    """

    def __init__(self, started: Started, created: int, include_usage: bool) -> None:
        self._head = _head(started, created, _CHUNK)
        self._include_usage = include_usage
        rest = '"usage":null,' if include_usage else ""
        head = written(self._head).decode()[:-1]
        self._before = f'data: {head},{rest}"choices":[{{"index":0,"delta":{{"content":'
        self._after = '},"logprobs":null,"finish_reason":null}]}\n\n'

    def first(self) -> bytes:
        """The one that says who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def text(self, piece: Text) -> bytes:
        """More of the answer."""
        said = json.dumps(piece.text, ensure_ascii=False)
        return f"{self._before}{said}{self._after}".encode("utf-8", "replace")

    def tool(self, piece: ToolDelta) -> bytes:
        """More of the call of a function."""
        function: Json = {"arguments": piece.arguments}
        call: Json = {"index": piece.index, "function": function}
        if piece.name:
            call |= {"id": piece.call_id, "type": "function"}
            function["name"] = piece.name
        return self._chunk({"tool_calls": [call]}, None)

    def last(self, finished: Finished) -> bytes:
        """The ends: why, what it took where that was wanted, and the mark."""
        ends = self._chunk({}, finished.reason)
        if self._include_usage:
            ends += line({**self._head, "choices": [], "usage": usage_of(finished.usage)})
        return ends + DONE

    def _chunk(self, delta: Json, reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._include_usage else {}
        return line({**self._head, **usage, "choices": [choice]})


def _head(started: Started, created: int, kind: str) -> Json:
    head: Json = {
        "id": f"chatcmpl-{started.answer_id}",
        "object": kind,
        "created": created,
        "model": started.model,
    }
    if started.session_id:
        head["metadata"] = {"session_id": started.session_id}
    return head


def _call(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def usage_of(usage: Usage) -> Json:
    """What an answer took."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def vectors(model: str, found: Iterable[Sequence[float]], usage: Usage, *, as_base64: bool) -> Json:
    """Vectors."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": _vector(each, as_base64)}
            for place, each in enumerate(found)
        ],
        "model": model,
        "usage": {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens},
    }


def _vector(values: Sequence[float], as_base64: bool) -> str | list[float]:
    if not as_base64:
        return list(values)
    # Little-endian single precision, as that protocol has it.
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def models(found: Iterable[Named]) -> Json:
    """Everything that a request may name."""
    return {"object": "list", "data": [model(each) for each in found]}


def model(named: Named) -> Json:
    """One of them."""
    return {"id": named.name, "object": "model", "created": 0, "owned_by": named.owner}
