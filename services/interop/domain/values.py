"""What is asked of a model, and what it answers, between that protocol and the mesh's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its bytes and their type, or where it is."""

    data: bytes = b""
    media_type: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function; the arguments are as the model wrote them."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `role` is that protocol's word."""

    role: str
    text: str
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """A JSON object; one that fits the schema where there is one."""

    name: str = ""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        model: As the request names it.
        tool_choice: `auto`, `required`, `none`, or `name:` and a function's; empty is unset.
        stream: Whether the answer comes as events.
        include_usage: Whether a stream ends with what was taken.
        session_id: Of an agent's conversation; empty begins one.
    """

    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    answer_format: Format | None = None
    stream: bool = False
    include_usage: bool = False
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class AskedResponse:
    """What a request for a response asks.

    Attributes:
        asked: The same as a chat's.
        items: The input as that protocol has it.
        instructions: Of this response alone, and of none that goes on from it.
        previous: The response that it goes on from; empty for none.
        background: Whether it goes on by itself.
        store: Whether it is kept.
        echo: What the response says of the request, as that protocol has it.
    """

    asked: Asked
    items: Sequence[Mapping[str, Any]] = ()
    instructions: str = ""
    previous: str = ""
    background: bool = False
    store: bool = True
    echo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AskedVectors:
    """What a request for vectors asks."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    base64: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the request and the answer."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """Somebody answers; `session_id` is an agent's conversation."""

    answer_id: str
    model: str
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """More of the call of a function."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is over; `reason` is that protocol's word."""

    reason: str
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Broken:
    """The answer ended early; `cancelled` where somebody wanted that."""

    code: str
    message: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as it stands: under way where `end` is None."""

    started: Started
    created: int
    asked: str
    text: str
    end: Finished | Broken | None


Piece: TypeAlias = Started | Text | ToolDelta
Event: TypeAlias = Piece | Finished
End: TypeAlias = Finished | Broken


@dataclass(frozen=True, slots=True)
class Named:
    """What a request may name."""

    name: str
    owner: str
