"""The items of a response's input: read, told to a model, and listed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.interop.domain import reading
from services.interop.domain.values import Message, ToolCall
from services.runtime.errors import InvalidRequest

Json = dict[str, Any]
Item = Mapping[str, Any]
_KINDS = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def read(value: object) -> list[Json]:
    """An input as items, each with its type; what they hold is looked at by `messages`.

    Raises:
        InvalidRequest: It is neither a text nor a list of objects.
    """
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list):
        raise InvalidRequest.field("input", "must be a text or a list of items")
    for place, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidRequest.field(f"input[{place}]", "must be an object")
    return [{"type": "message", **item} for item in value]


def messages(items: Sequence[Item]) -> list[Message]:
    """Items as a model is told them: the calls of one answer are one message.

    Raises:
        InvalidRequest: One of them is none.
    """
    found: list[Message] = []
    for place, item in enumerate(items):
        path = f"input[{place}]"
        if item["type"] == "reasoning":  # a model's own notes, which no other model reads
            continue
        message = _message(item, path)
        if found and message.tool_calls and found[-1].role == message.role and not message.text:
            calls = (*found[-1].tool_calls, *message.tool_calls)
            found[-1] = replace(found[-1], tool_calls=calls)
        else:
            found.append(message)
    return found


def _message(item: Item, path: str) -> Message:
    kind = item["type"]
    if kind == "message":
        return reading.message(item, path)
    if kind == "function_call":
        words = {name: reading.text(item, name, path) for name in ("call_id", "name", "arguments")}
        return Message("assistant", "", tool_calls=(ToolCall(**words),))
    if kind == "function_call_output":
        call_id = reading.text(item, "call_id", path)
        return Message("tool", reading.text(item, "output", path), tool_call_id=call_id)
    raise InvalidRequest.field(f"{path}.type", f"{kind!r} is not supported here")


def page(answer_id: str, items: Sequence[Item], after: str, limit: int, *, ascending: bool) -> Json:
    """A page of a response's items, as that protocol lists them.

    Raises:
        InvalidRequest: `after` is none of them.
    """
    every = [_shown(answer_id, place, item) for place, item in enumerate(items)]
    if not ascending:
        every.reverse()
    places = {each["id"]: place for place, each in enumerate(every)}
    if after and after not in places:
        raise InvalidRequest.field("after", "must be the id of one of the items")
    first = places[after] + 1 if after else 0
    found = every[first : first + limit]
    return {
        "object": "list",
        "data": found,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
        "has_more": first + limit < len(every),
    }


def _shown(answer_id: str, place: int, item: Item) -> Json:
    prefix = _KINDS.get(item["type"], "item")
    shown = {"status": "completed", **item, "id": f"{prefix}_{answer_id}_{place}"}
    text = item.get("content")
    if isinstance(text, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        shown["content"] = [{"type": kind, "text": text}]
    return shown
