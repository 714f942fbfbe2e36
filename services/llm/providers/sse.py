"""OpenAI's chat-completion chunks, out of the bytes of a server-sent event stream.

The client library makes an object of some forty fields of each chunk, which costs more than all the
rest of passing a token on. Here three of them are read, and anything that is not as the protocol
has it is an error rather than a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jiter

from services.llm.domain.generation import ToolDelta, Usage

DONE = b"[DONE]"
_MAX_LINE = 1_048_576
_MAX_INT32 = 2**31 - 1
_MAX_CALLS = 128
_FIELD = b"data:"


class BrokenStream(ValueError):
    """The server does not speak the protocol."""


@dataclass(slots=True)
class Chunk:
    """What a chunk says; not frozen, which would cost each token as much as its JSON.

    Attributes:
        text: More of the answer; empty in many chunks.
        finish: The server's word for why the model stopped; empty while it goes on.
        usage: The tokens counted so far, where the server says.
        error: Whether it is the server's report that it failed.
        calls: Pieces of calls of functions.
    """

    text: str = ""
    finish: str = ""
    usage: Usage | None = None
    error: bool = False
    calls: tuple[ToolDelta, ...] = ()


class EventSplitter:
    """Finds the payloads of events in bytes that arrive in any pieces.

    A chunk is one line of JSON, so each `data:` line is an event. Comments and other fields are
    passed over, as the standard asks.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that these bytes complete.

        Raises:
            BrokenStream: A line is longer than any chunk of text can be.
        """
        if self._rest:
            # Only where this ends is looked for in what came before: a line may come byte by byte.
            end = data.find(b"\n")
            self._rest += data if end < 0 else data[:end]
            if end < 0:
                self._require_short()
                return []
            first, data = bytes(self._rest), data[end + 1 :]
            lines = [first, *data.split(b"\n")]
        else:
            lines = data.split(b"\n")
        self._rest = bytearray(lines.pop())
        self._require_short()
        return [line[len(_FIELD) :].strip() for line in lines if line.startswith(_FIELD)]

    def _require_short(self) -> None:
        if len(self._rest) > _MAX_LINE:
            raise BrokenStream("a line is too long")


def parse_chunk(payload: bytes) -> Chunk:
    """Read one chunk.

    Raises:
        BrokenStream: It is not JSON, or not a chunk.
    """
    try:
        value = _parsed(payload)
    except (ValueError, RecursionError) as error:
        raise BrokenStream("a chunk is not JSON") from error
    if not isinstance(value, dict):
        raise BrokenStream("a chunk is not an object")
    if value.get("error"):
        return Chunk(error=True)
    choice = _first_choice(value.get("choices"))
    delta = choice.get("delta")
    text = ""
    calls: tuple[ToolDelta, ...] = ()
    if isinstance(delta, dict):
        # A model's refusal is what it has to say, and comes in a field of its own.
        text = delta.get("content") or delta.get("refusal") or ""
        if delta.get("tool_calls"):
            calls = tuple(_calls(delta["tool_calls"]))
    finish = choice.get("finish_reason") or ""
    if not isinstance(text, str) or not isinstance(finish, str):
        raise BrokenStream("a chunk's text is no text")
    return Chunk(text, finish, _usage(value.get("usage")), calls=calls)


def _parsed(payload: bytes) -> object:
    try:
        return jiter.from_json(payload, allow_inf_nan=False)
    except ValueError:
        # It is strict: halves of characters, for one, are text to Python's own.
        return json.loads(payload.decode())


def _calls(value: object) -> Iterator[ToolDelta]:
    for place, each in enumerate(value if isinstance(value, list) else [None]):
        called = each.get("function") if isinstance(each, dict) else None
        if not isinstance(called, dict):
            raise BrokenStream("a chunk's tool call is none")
        # Some servers give whole calls, and leave their numbers out.
        index = each.get("index", place)
        words = (each.get("id") or "", called.get("name") or "", called.get("arguments") or "")
        if not isinstance(index, int) or not all(isinstance(word, str) for word in words):
            raise BrokenStream("a chunk's tool call has no number, or words that are none")
        if not 0 <= index < _MAX_CALLS:
            raise BrokenStream("a chunk has too many tool calls")
        yield ToolDelta(index, *words)


def _first_choice(choices: object) -> dict[str, Any]:
    if not choices:
        return {}
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise BrokenStream("a chunk's choices are no list of objects")
    return choices[0]


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    asked, answered = value.get("prompt_tokens"), value.get("completion_tokens")
    if not isinstance(asked, int) or not isinstance(answered, int):
        return None
    if not 0 <= min(asked, answered) <= max(asked, answered) <= _MAX_INT32:
        return None
    return Usage(int(asked), int(answered), estimated=False)


class SurrogateMender:
    """Joins characters that JSON's escapes left in halves, one half to a chunk.

    A server that cuts its text in UTF-16 units sends such halves, and protobuf takes none of them.
    """

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """The text, whole characters only; a half waits for what follows."""
        if text.isascii() and not self._half:
            return text
        text = self._half + text
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
