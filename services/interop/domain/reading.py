"""Requests of OpenAI's protocol, read.

Fields that nobody knows are passed over. What is known and cannot be done here is refused by name:
an answer that ignored it would look as if it had been obeyed.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from services.interop.domain.values import (
    Asked,
    AskedVectors,
    Format,
    Image,
    Message,
    Tool,
    ToolCall,
)
from services.runtime.errors import InvalidRequest

_T = TypeVar("_T")
Json = Mapping[str, Any]
_MAX_DEPTH_ERRORS = (ValueError, RecursionError)
_ROLES = ("system", "developer", "user", "assistant", "tool")
_MAX_ITEMS = 2_048
_MAX_DIGITS = 19
_MAX_COUNT = 2**31 - 1
# What would change the answer, and the values with which it would not.
_NOT_HERE: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "web_search_options": (None,),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True),
}


def body_of(data: bytes) -> Json:
    """The JSON object of a body.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        body = json.loads(data, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
    except _MAX_DEPTH_ERRORS as error:
        raise InvalidRequest("The body is not JSON, or has a number without bounds.") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    if b"\\u" in data:
        # Halves of characters, which JSON can write and nothing else takes.
        text = json.dumps(body, ensure_ascii=False)
        whole: Json = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        return whole
    return body


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("too large")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def chat(body: Json) -> Asked:
    """A chat completion.

    Raises:
        InvalidRequest: A field has a value that it cannot have, or asks for what is not done here.
    """
    for name, harmless in _NOT_HERE.items():
        if body.get(name) not in harmless:
            raise InvalidRequest.field(name, "is not supported here; leave it out")
    messages = _list(body, "messages", message)
    if not messages:
        raise InvalidRequest.field("messages", "must have at least one message")
    return Asked(messages=tuple(messages), **options(body))


def options(
    body: Json, longest: Sequence[str] = ("max_completion_tokens", "max_tokens")
) -> dict[str, Any]:
    """Everything of a request but its messages, by the names of `Asked`.

    Args:
        body: The request.
        longest: The names of the bound on its answer, the first that is set.

    Raises:
        InvalidRequest: A field has a value that it cannot have.
    """
    streaming = _of(body, "stream_options", dict) or {}
    stop = body.get("stop")
    return {
        "model": text(body, "model"),
        "max_output_tokens": next(filter(None, (_count(body, each) for each in longest)), None),
        "temperature": _number(body, "temperature"),
        "top_p": _number(body, "top_p"),
        "stop": tuple(_texts([stop] if isinstance(stop, str) else stop or [], "stop")),
        "tools": tuple(_list(body, "tools", _tool)),
        "tool_choice": _choice(body.get("tool_choice")),
        "answer_format": _format(_of(body, "response_format", dict)),
        "stream": flag(body, "stream"),
        "include_usage": bool(streaming.get("include_usage")),
        "session_id": _session(body),
    }


def text(body: Json, name: str, path: str = "") -> str:
    """A text field; empty where it is left out.

    Raises:
        InvalidRequest: It is something else.
    """
    return _of(body, name, str, path) or ""


def flag(body: Json, name: str, *, unset: bool = False) -> bool:
    """A switch.

    Raises:
        InvalidRequest: It is something else.
    """
    found = _of(body, name, bool)
    return unset if found is None else found


def vectors(body: Json) -> AskedVectors:
    """A request for vectors.

    Raises:
        InvalidRequest: A field has a value that it cannot have, or the input is tokens.
    """
    given = body.get("input")
    texts = _texts([given] if isinstance(given, str) else given, "input")
    if not texts:
        raise InvalidRequest.field("input", "must have at least one text")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise InvalidRequest.field("encoding_format", "must be float or base64")
    return AskedVectors(
        model=_of(body, "model", str) or "",
        texts=tuple(texts),
        dimensions=_count(body, "dimensions"),
        base64=encoding == "base64",
    )


def message(value: object, path: str) -> Message:
    """One message.

    Raises:
        InvalidRequest: It is none.
    """
    body = _object(value, path)
    role = body.get("role")
    if role not in _ROLES:
        raise InvalidRequest.field(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
    text, images = _content(body.get("content"), f"{path}.content")
    if role == "assistant" and not text:
        text = _of(body, "refusal", str, path) or ""
    return Message(
        role=str(role),
        text=text,
        images=images,
        tool_calls=tuple(_list(body, "tool_calls", _tool_call, path)),
        tool_call_id=_of(body, "tool_call_id", str, path) or "",
    )


def _content(value: object, path: str) -> tuple[str, tuple[Image, ...]]:
    if value is None:
        return "", ()
    if isinstance(value, str):
        return value, ()
    if not isinstance(value, list):
        raise InvalidRequest.field(path, "must be a text or a list of parts")
    texts, images = [], []
    for place, each in enumerate(value[:_MAX_ITEMS]):
        where = f"{path}[{place}]"
        part = _object(each, where)
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text", "refusal"):
            texts.append(_of(part, "refusal" if kind == "refusal" else "text", str, where) or "")
        elif kind == "image_url":
            shown = part.get("image_url")
            url = shown.get("url") if isinstance(shown, dict) else shown
            images.append(_image(url, where))
        elif kind == "input_image":
            images.append(_image(part.get("image_url"), where))
        else:
            raise InvalidRequest.field(f"{where}.type", f"{kind!r} is not supported here")
    return "\n".join(texts), tuple(images)


def _image(url: object, path: str) -> Image:
    if not isinstance(url, str):
        raise InvalidRequest.field(path, "must have the image's url")
    if not url.startswith("data:"):
        return Image(url=url)
    head, _, data = url.partition(",")
    media_type, *rest = head.removeprefix("data:").split(";")
    if rest[-1:] != ["base64"]:
        raise InvalidRequest.field(path, "must be base64 where it is a data URL")
    try:
        return Image(base64.b64decode(data, validate=True), media_type)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.field(path, "is not base64") from error


def _tool_call(value: object, path: str) -> ToolCall:
    body = _object(value, path)
    called = _object(body.get("function"), f"{path}.function")
    return ToolCall(
        call_id=_of(body, "id", str, path) or "",
        name=_of(called, "name", str, path) or "",
        arguments=_of(called, "arguments", str, path) or "",
    )


def _tool(value: object, path: str) -> Tool:
    body = _object(value, path)
    if body.get("type") != "function":
        raise InvalidRequest.field(f"{path}.type", f"{body.get('type')!r} is not supported here")
    # Chat completions wrap the function; responses do not.
    described = _object(body.get("function", body), f"{path}.function")
    return Tool(
        name=_of(described, "name", str, path) or "",
        description=_of(described, "description", str, path) or "",
        parameters=_of(described, "parameters", dict, path) or {},
    )


def _choice(value: object) -> str:
    if value is None:
        return ""
    if value in ("auto", "required", "none"):
        return str(value)
    if isinstance(value, dict) and value.get("type") == "function":
        function = value.get("function") or value
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return f"name:{function['name']}"
    raise InvalidRequest.field("tool_choice", "must be auto, required, none or one function")


def _format(value: Json | None) -> Format | None:
    kind = "text" if value is None else value.get("type")
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return Format()
    if kind != "json_schema":
        raise InvalidRequest.field("response_format.type", f"{kind!r} is not supported here")
    # Chat completions nest it; responses do not.
    wanted = _object(value.get("json_schema", value), "response_format.json_schema")
    schema = _of(wanted, "schema", dict, "response_format.json_schema")
    return Format(_of(wanted, "name", str) or "answer", schema or {})


def _session(body: Json) -> str:
    metadata = body.get("metadata")
    found = metadata.get("session_id") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else ""


def _object(value: object, path: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidRequest.field(path, "must be an object")
    return value


def _of(body: Json, name: str, kind: type[_T], path: str = "") -> _T | None:
    value = body.get(name)
    if value is None or isinstance(value, kind):
        return value
    where = f"{path}.{name}" if path else name
    raise InvalidRequest.field(where, f"must be {_KINDS[kind]}")


_KINDS: dict[type, str] = {str: "a text", bool: "true or false", dict: "an object", list: "a list"}


def _count(body: Json, name: str) -> int | None:
    value = _number(body, name)
    if value is None or (value == int(value) and 0 < value <= _MAX_COUNT):
        return None if value is None else int(value)
    raise InvalidRequest.field(name, "must be a whole number above 0")


def _number(body: Json, name: str) -> float | None:
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InvalidRequest.field(name, "must be a number")


def _list(body: Json, name: str, read: Callable[[object, str], _T], path: str = "") -> list[_T]:
    where = f"{path}.{name}" if path else name
    values = _of(body, name, list, path) or []
    if len(values) > _MAX_ITEMS:
        raise InvalidRequest.field(where, f"must have at most {_MAX_ITEMS} items")
    return [read(each, f"{where}[{place}]") for place, each in enumerate(values)]


def _texts(values: object, path: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise InvalidRequest.field(path, "must be a text or a list of texts")
    return values
