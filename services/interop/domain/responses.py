"""Responses of OpenAI's protocol: what is asked, and the object and events that tell of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.interop.domain import items, reading
from services.interop.domain.items import Item
from services.interop.domain.values import (
    Asked,
    AskedResponse,
    Broken,
    End,
    Finished,
    Message,
    Piece,
    Started,
    Text,
    ToolDelta,
)
from services.interop.domain.writing import written
from services.runtime.errors import InvalidRequest

Json = dict[str, Any]
PREFIX = "resp_"
# What would change the answer, and the values with which it would not.
_NOT_HERE: dict[str, tuple[Any, ...]] = {
    "conversation": (None,),
    "prompt": (None,),
    "include": (None, []),
    "max_tool_calls": (None,),
    "top_logprobs": (None, 0),
    "parallel_tool_calls": (None, True),
}
_ECHOED = ("instructions", "max_output_tokens", "temperature", "top_p", "metadata", "user")
# What a model takes, with the instructions.
_MAX_MESSAGES = 1_999
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


def asked(body: Mapping[str, Any]) -> AskedResponse:
    """A request for a response.

    Raises:
        InvalidRequest: A field has a value that it cannot have, or asks for what is not done here.
    """
    for name, harmless in _NOT_HERE.items():
        if body.get(name) not in harmless:
            raise InvalidRequest.field(name, "is not supported here; leave it out")
    wanted = body.get("text")
    form = wanted.get("format") if isinstance(wanted, dict) else None
    chat = reading.options({**body, "response_format": form}, ("max_output_tokens",))
    found = AskedResponse(
        asked=Asked(messages=(), **chat),
        items=items.read(body.get("input")),
        instructions=reading.text(body, "instructions"),
        previous=reading.text(body, "previous_response_id"),
        background=reading.flag(body, "background"),
        store=reading.flag(body, "store", unset=True),
        echo={name: body.get(name) for name in _ECHOED}
        | {
            "tools": body.get("tools") or [],
            "tool_choice": body.get("tool_choice") or "auto",
            "text": wanted or {"format": {"type": "text"}},
            "previous_response_id": body.get("previous_response_id") or None,
            "background": reading.flag(body, "background"),
        },
    )
    if not items.messages(found.items):
        raise InvalidRequest.field("input", "must have at least one item")
    return replace(found, asked=going_on(found, ()))


def going_on(asked: AskedResponse, before: Sequence[Item]) -> Asked:
    """What a model is asked, with the conversation before it.

    Raises:
        InvalidRequest: An item is none, or there are too many messages.
    """
    said = items.messages([*before, *asked.items])
    if before and len(said) > _MAX_MESSAGES:
        reason = f"makes a conversation of more than {_MAX_MESSAGES} messages"
        raise InvalidRequest.field("previous_response_id", reason)
    head = [Message("system", asked.instructions)] if asked.instructions else []
    return replace(asked.asked, messages=(*head, *said))


class _Item:
    """A part of the output as it comes: a message, or the call of a function."""

    def __init__(self, place: int, item_id: str, call: ToolDelta | None) -> None:
        self.place = place
        self.item_id = item_id
        self.call = call
        self.said: list[str] = []

    @property
    def whole(self) -> str:
        """The text, or the arguments."""
        return "".join(self.said)

    def shown(self, status: str) -> Json:
        """As the output has it."""
        if self.call is None:
            content = [_part(self.whole)]
            about: Json = {"type": "message", "role": "assistant", "content": content}
        else:
            about = {
                "type": "function_call",
                "call_id": self.call.call_id,
                "name": self.call.name,
                "arguments": self.whole,
            }
        return {**about, "id": self.item_id, "status": status}


class Response:
    """One response as its events come; the same events get the same numbers each time."""

    def __init__(self, started: Started, created: int, echo: Mapping[str, Any]) -> None:
        self._started = started
        self._created = created
        self._echo = echo
        self._number = 0
        self._items: list[_Item] = []
        self._message: _Item | None = None
        self._calls: dict[int, _Item] = {}

    def begin(self) -> Iterator[tuple[int, bytes]]:
        """It was accepted."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self.shown("in_progress"))

    def take(self, pieces: Iterable[Piece]) -> None:
        """More of the answer, without events."""
        for piece in pieces:
            self._grown(piece)

    def piece(self, piece: Piece) -> Iterator[tuple[int, bytes]]:
        """More of the answer."""
        known = len(self._items)
        item = self._grown(piece)
        if item is None:
            return
        place = {"output_index": item.place, "item_id": item.item_id}
        if len(self._items) > known:
            empty = _Item(item.place, item.item_id, item.call).shown("in_progress")
            shown = {**empty, "content": []} if item.call is None else empty
            yield self._event("response.output_item.added", output_index=item.place, item=shown)
            if item.call is None:
                part = _part("")
                yield self._event(
                    "response.content_part.added", **place, content_index=0, part=part
                )
        if isinstance(piece, Text):
            more = {**place, "content_index": 0, "delta": piece.text, "logprobs": []}
            yield self._event("response.output_text.delta", **more)
        elif isinstance(piece, ToolDelta) and piece.arguments:
            delta = piece.arguments
            yield self._event("response.function_call_arguments.delta", **place, delta=delta)

    def _grown(self, piece: Piece) -> _Item | None:
        """The item that a piece belongs to, with it."""
        match piece:
            case Started(model=model):
                self._started = replace(self._started, model=model)
                return None
            case Text(text):
                if self._message is None:
                    self._message = self._new(f"msg_{self._started.answer_id}", None)
                self._message.said.append(text)
                return self._message
            case ToolDelta(index, call_id, _, arguments):
                if index not in self._calls:
                    self._calls[index] = self._new(f"fc_{call_id or index}", piece)
                self._calls[index].said.append(arguments)
                return self._calls[index]

    def _new(self, item_id: str, call: ToolDelta | None) -> _Item:
        item = _Item(len(self._items), item_id, call)
        self._items.append(item)
        return item

    def end(self, how: End) -> Iterator[tuple[int, bytes]]:
        """It is over."""
        ended = self.ended(how)
        if isinstance(how, Finished):
            for item, shown in zip(self._items, ended["output"], strict=True):
                yield from self._done(item, shown)
        yield self._event(f"response.{ended['status']}", response=ended)

    def _done(self, item: _Item, shown: Json) -> Iterator[tuple[int, bytes]]:
        place = {"output_index": item.place, "item_id": item.item_id}
        if item.call is None:
            part, text = _part(item.whole), {"text": item.whole, "logprobs": []}
            yield self._event("response.output_text.done", **place, content_index=0, **text)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        else:
            called = {"name": item.call.name, "arguments": item.whole}
            yield self._event("response.function_call_arguments.done", **place, **called)
        yield self._event("response.output_item.done", output_index=item.place, item=shown)

    def ended(self, how: End) -> Json:
        """The object once it is over."""
        if isinstance(how, Broken):
            found = self.shown("cancelled" if how.cancelled else "failed")
            error = {"code": how.code.lower(), "message": how.message}
            return {**found, "error": None if how.cancelled else error}
        reason = _CUT.get(how.reason)
        found = self.shown("incomplete" if reason else "completed")
        found["incomplete_details"] = {"reason": reason} if reason else None
        taken = how.usage
        found["usage"] = {
            "input_tokens": taken.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": taken.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": taken.input_tokens + taken.output_tokens,
        }
        return found

    def shown(self, status: str) -> Json:
        """The object as it stands."""
        return {
            "id": PREFIX + self._started.answer_id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._started.model,
            "output": self.output(status),
            "parallel_tool_calls": True,
            "store": True,
            "truncation": "disabled",
            "usage": None,
            "tool_choice": "auto",
            "tools": [],
            **self._echo,
        }

    def output(self, status: str) -> list[Json]:
        """What was answered."""
        own = status if status in ("completed", "in_progress") else "incomplete"
        return [item.shown(own) for item in self._items]

    def _event(self, kind: str, **values: Any) -> tuple[int, bytes]:
        number = self._number
        self._number += 1
        data = written({"type": kind, "sequence_number": number, **values})
        return number, b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
