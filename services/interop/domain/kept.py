"""Responses of models as they are kept: the request, the pieces of the answer, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.interop.domain.items import Item
from services.interop.domain.responses import PREFIX, Response
from services.interop.domain.values import (
    Broken,
    End,
    Finished,
    Piece,
    Started,
    Text,
    ToolDelta,
    Usage,
)
from services.interop.domain.writing import written
from services.runtime.errors import Aborted, InvalidRequest, NotFound, Violation

OWN_PREFIX = "rsp"
_FORM = re.compile(rf"{PREFIX}({OWN_PREFIX}_[0-9a-z]{{26}})")
# Of a conversation that goes on: how many responses, and the bytes of what was asked and answered.
# One answer is bounded where models are asked: a million characters.
MAX_DEPTH = 200
MAX_BYTES = 8_000_000
_MICROSECONDS = 1_000_000
_PREVIOUS = "previous_response_id"

CANCELLED = Broken("CANCELLED", "The response was cancelled.", cancelled=True)
LEFT = Broken("CANCELLED", "Whoever asked went away.", cancelled=True)
INTERRUPTED = Broken("INTERRUPTED", "The process that wrote it ended. Its text so far is kept.")


class Taken(Aborted):
    """Somebody else ended or deleted the response; this process lets go of it."""

    def __init__(self) -> None:
        super().__init__("The response is not this process's any more.")


@dataclass(frozen=True, slots=True)
class Kept:
    """A model's response.

    Attributes:
        response_id: `rsp_…`; that protocol has `resp_` before it.
        model: As it was asked for; the one that answered is among the pieces.
        previous_id: The response it goes on from; empty for none.
        depth: How many responses its conversation has.
        size: The bytes of the conversation, as far as it is written.
        end: How it ended; None while it is under way.
    """

    response_id: str
    tenant_id: str
    user_id: str
    model: str
    previous_id: str
    items: Sequence[Item]
    echo: Mapping[str, Any]
    depth: int
    size: int
    create_time: int
    end: End | None = None

    def begun(self, pieces: Iterable[Piece] = ()) -> Response:
        """It as that protocol has it, with these pieces of its answer."""
        started = Started(self.response_id, self.model)
        response = Response(started, self.create_time // _MICROSECONDS, self.echo)
        response.take(pieces)
        return response

    def shown(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """The object as it stands."""
        response = self.begun(pieces)
        return response.shown("in_progress") if self.end is None else response.ended(self.end)

    def said(self, pieces: Iterable[Piece]) -> list[Item]:
        """What was asked and answered, for a response that goes on from it.

        Of an answer that was cut short the text alone, for a call may lack half its arguments.
        """
        whole = isinstance(self.end, Finished) and self.end.reason in ("stop", "tool_calls")
        output = self.begun(pieces).output("completed")
        return [*self.items, *(each for each in output if whole or each["type"] == "message")]


def own_id(response_id: str) -> str:
    """The id of a model's response by that protocol's form of it; empty where it is no model's."""
    found = _FORM.fullmatch(response_id)
    return found[1] if found else ""


def size_of(value: Any) -> int:
    """The bytes of something that is kept."""
    return len(written(value))


def grown(previous: Kept | None, items: Sequence[Item]) -> tuple[int, int]:
    """The depth and size of a conversation with these items behind what was before.

    Raises:
        InvalidRequest: It is too long, or what was before is still under way.
    """
    if previous is not None and previous.end is None:
        raise InvalidRequest.field(_PREVIOUS, "is still under way: wait for its end")
    depth = 1 + (previous.depth if previous else 0)
    size = size_of(items) + (previous.size if previous else 0)
    if depth > MAX_DEPTH:
        raise InvalidRequest.field(_PREVIOUS, f"has {MAX_DEPTH} responses before it, the most")
    if size > MAX_BYTES:
        name = _PREVIOUS if previous else "input"
        raise InvalidRequest.field(name, f"makes a conversation of more than {MAX_BYTES} bytes")
    return depth, size


def no_previous(response_id: str) -> NotFound:
    """The error for a response to go on from that is not there, or is no longer whole."""
    named = repr(response_id[:80])
    return NotFound(
        f"No model's response {named} is kept to go on from, or one before it is gone.",
        violations=[Violation(_PREVIOUS, "must be a response that is kept")],
    )


def packed(piece: Piece) -> Any:
    """A piece as JSON, in few bytes: most are texts."""
    match piece:
        case Text(text):
            return text
        case ToolDelta(index, call_id, name, arguments):
            return [index, call_id, name, arguments]
        case Started(model=model):
            return {"model": model}


def unpacked(data: Any) -> Piece:
    """A piece from its JSON."""
    if isinstance(data, str):
        return Text(data)
    return ToolDelta(*data) if isinstance(data, list) else Started("", data["model"])


def unpacked_end(data: Mapping[str, Any]) -> End:
    """How a response ended, from its fields."""
    if "usage" in data:
        return Finished(data["reason"], Usage(**data["usage"]))
    return Broken(**data)
