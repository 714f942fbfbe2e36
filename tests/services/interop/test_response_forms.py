"""Responses as values: what is told of an answer, and what is listed of a request."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.interop.domain import items, responses
from services.interop.domain.kept import (
    own_id,
    packed,
    unpacked,
    unpacked_end,
)
from services.interop.domain.values import (
    Broken,
    End,
    Finished,
    Message,
    Piece,
    Started,
    Text,
    ToolCall,
    ToolDelta,
    Usage,
)
from services.runtime.errors import InvalidRequest
from services.runtime.ids import new_id

_PIECES = st.one_of(
    st.builds(Text, st.text()),
    st.builds(ToolDelta, st.integers(0, 3), st.text(), st.text(), st.text()),
    st.builds(Started, st.just(""), st.text()),
)
_ENDS = st.one_of(
    st.builds(Finished, st.text(), st.builds(Usage, st.integers(0), st.integers(0))),
    st.builds(Broken, st.text(), st.text(), st.booleans()),
)


@given(_PIECES)
def test_a_piece_comes_back(piece: Piece) -> None:
    assert unpacked(json.loads(json.dumps(packed(piece)))) == piece


@given(_ENDS)
def test_an_end_comes_back(end: End) -> None:
    assert unpacked_end(json.loads(json.dumps(asdict(end)))) == end


@given(st.lists(_PIECES, max_size=12), _ENDS)
def test_events_and_object_say_the_same(pieces: list[Piece], end: End) -> None:
    def new() -> responses.Response:
        return responses.Response(Started("rsp_1", "m"), 5, {})

    live, taken = new(), new()
    told = list(live.begin())
    for piece in pieces:
        told += live.piece(piece)
    told += live.end(end)
    taken.take(pieces)
    assert [number for number, _ in told] == list(range(len(told)))
    events = [json.loads(data.partition(b"data: ")[2]) for _, data in told]
    # Written once, as halves of characters are lost there.
    whole = json.loads(json.dumps(taken.ended(end)).encode("utf-8", "replace"))
    assert events[-1]["response"]["output"] == whole["output"]
    added = [each["item"]["id"] for each in events if each["type"].endswith("item.added")]
    assert added == [each["id"] for each in whole["output"]]
    texts = "".join(each["delta"] for each in events if each["type"].endswith("text.delta"))
    assert texts == "".join(each.text for each in pieces if isinstance(each, Text))


def test_what_comes_after_a_call_has_the_next_place() -> None:
    response = responses.Response(Started("rsp_1", "m"), 5, {})
    response.take([ToolDelta(0, "c", "f", "{"), Text("Hello"), ToolDelta(0, "", "", "}")])
    call, message = response.output("completed")
    assert (call["arguments"], message["content"][0]["text"]) == ("{}", "Hello")


def test_calls_of_one_answer_are_one_message() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"type": "function_call", "call_id": name, "name": name, "arguments": "{}"}

    def output(name: str) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": name, "output": name}

    said = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "A moment."},
        *(call("a"), call("b"), output("a"), output("b"), call("c"), output("c")),
    ]
    first, second, *_, third, last = items.messages(items.read(said))
    calls = [ToolCall(name, name, "{}") for name in ("a", "b", "c")]
    assert first == Message("user", "Hi.")
    assert second == Message("assistant", "A moment.", tool_calls=(calls[0], calls[1]))
    assert third == Message("assistant", "", tool_calls=(calls[2],))
    assert last == Message("tool", "c", tool_call_id="c")


def test_pages_of_items() -> None:
    said = items.read([{"role": "user", "content": f"{n}"} for n in range(5)])
    found: list[str] = []
    after, more = "", True
    while more:
        page = items.page("rsp_1", said, after, 2, ascending=False)
        found += [each["content"][0]["text"] for each in page["data"]]
        after, more = page["last_id"], page["has_more"]
        assert page["first_id"] == page["data"][0]["id"]
    assert found == ["4", "3", "2", "1", "0"]
    assert items.page("rsp_1", said, after, 2, ascending=False)["data"] == []
    with pytest.raises(InvalidRequest):
        items.page("rsp_1", said, "msg_other", 2, ascending=True)


@pytest.mark.parametrize(
    "form", ["", "rsp_1", "resp_", "resp_run_{}", "{}", "resp_rsp_\0", "RESP_{}"]
)
def test_ids_that_are_no_models_response(form: str) -> None:
    assert not own_id(form.format(new_id("rsp")))
    assert own_id(f"resp_{new_id('rsp')}")
