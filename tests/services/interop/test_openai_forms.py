"""OpenAI's protocol: what is read of it, what is refused by name, and how answers are written."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.interop.domain import reading, responses, writing
from services.interop.domain.values import (
    Finished,
    Format,
    Image,
    Message,
    Started,
    Text,
    Tool,
    ToolCall,
    ToolDelta,
    Usage,
)
from services.runtime.errors import InvalidRequest, ResourceExhausted

HELLO = [{"role": "user", "content": "Hello"}]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_FIELDS = (
    *("model", "messages", "stream", "stream_options", "max_tokens", "temperature", "stop"),
    *("tools", "tool_choice", "response_format", "metadata", "n", "input", "dimensions"),
    *("text", "instructions", "max_output_tokens", "previous_response_id", "background"),
)


def refused(read: Any, body: dict[str, Any]) -> str:
    """The field that is refused."""
    with pytest.raises(InvalidRequest) as raised:
        read(body)
    return raised.value.violations[0].field


def test_the_least_that_can_be_asked() -> None:
    asked = reading.chat({"messages": HELLO})
    assert asked.messages == (Message("user", "Hello"),)
    assert (asked.model, asked.stream, asked.max_output_tokens) == ("", False, None)


def test_everything_that_is_understood() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "text", "text": "two"},
    ]
    asked = reading.chat(
        {
            "model": "lab/tiny",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": parts},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}]},
            ],
            "max_tokens": 5,
            "max_completion_tokens": 7,
            "stop": "END",
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
            "stream": True,
            "stream_options": {"include_usage": True},
            "metadata": {"session_id": "ses_1"},
            "seed": 7,
            "nobody_knows": {"this": []},
        }
    )
    assert asked.messages[1].text == "one\ntwo"
    assert asked.messages[1].images == (
        Image(url="https://example.com/a.png"),
        Image(b"hi", "image/png"),
    )
    assert asked.messages[2].tool_calls == (ToolCall("c", "f", "{}"),)
    assert asked.messages[3] == Message("tool", "r", tool_call_id="c")
    assert (asked.max_output_tokens, asked.stop) == (7, ("END",))
    assert asked.tools == (Tool("f", "d", {"type": "object"}),)
    assert asked.tool_choice == "name:f"
    assert asked.answer_format == Format("n", {})
    assert (asked.stream, asked.include_usage, asked.session_id) == (True, True, "ses_1")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("n", {"n": 2}),
        ("logprobs", {"logprobs": True}),
        ("functions", {"functions": [{}]}),
        ("parallel_tool_calls", {"parallel_tool_calls": False}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "Hello"}),
        ("messages[0]", {"messages": ["Hello"]}),
        ("messages[0].role", {"messages": [{"role": "function", "content": ""}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 3}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{}]}]}),
        ("temperature", {"temperature": "warm"}),
        ("max_tokens", {"max_tokens": True}),
        ("stop", {"stop": [1]}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tool_choice", {"tool_choice": "maybe"}),
        ("response_format.type", {"response_format": {"type": "grammar"}}),
        ("stream", {"stream": "yes"}),
        ("max_tokens", {"max_tokens": 2**40}),
        ("max_tokens", {"max_tokens": 1.5}),
    ],
)
def test_what_is_not_done_is_refused_by_name(field: str, values: dict[str, Any]) -> None:
    assert refused(reading.chat, {"messages": HELLO, **values}) == field


@pytest.mark.parametrize("url", ["data:image/png,raw", "data:image/png;base64,%%%"])
def test_images_that_are_none(url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"messages": [{"role": "user", "content": content}]}
    assert refused(reading.chat, body) == "messages[0].content[0]"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_bodies_that_are_none(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        reading.body_of(data)


@given(st.dictionaries(st.sampled_from(_FIELDS), _json))
def test_nothing_but_a_refusal_comes_of_garbage(body: dict[str, Any]) -> None:
    for read in (reading.chat, reading.vectors, responses.asked):
        try:
            read(reading.body_of(json.dumps(body).encode()))
        except InvalidRequest as error:
            assert error.violations or "number" in error.message


def test_vectors_are_asked_for_in_both_forms() -> None:
    assert reading.vectors({"input": "a", "encoding_format": "base64"}).base64
    assert reading.vectors({"input": ["a", "b"], "dimensions": 3}).dimensions == 3
    assert refused(reading.vectors, {"input": [[1, 2, 3]]}) == "input"
    assert refused(reading.vectors, {"input": "a", "encoding_format": "hex"}) == "encoding_format"
    body = writing.vectors("m", [[1.0, -2.5]], Usage(3), as_base64=True)
    packed = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (1.0, -2.5)


@given(st.text())
def test_a_chunk_is_json_whatever_it_says(text: str) -> None:
    chunks = writing.Chunks(Started("gen_1", "m", "ses_1"), 5, include_usage=True)
    tool = chunks.tool(ToolDelta(0, "c", "f", text))
    for data in (chunks.first(), chunks.text(Text(text)), tool):
        assert data.startswith(b"data: ")
        assert data.endswith(b"\n\n")
        assert data.count(b"\n") == 2
        value = json.loads(data[6:])
        assert (value["id"], value["object"]) == ("chatcmpl-gen_1", "chat.completion.chunk")
        assert value["usage"] is None
        assert value["metadata"] == {"session_id": "ses_1"}
    said = json.loads(chunks.text(Text(text))[6:])["choices"][0]["delta"]["content"]
    assert said == text.encode("utf-8", "replace").decode()


def test_the_ends_of_a_stream() -> None:
    finished = Finished("length", Usage(3, 4))
    plain = writing.Chunks(Started("g", "m"), 5, include_usage=False).last(finished)
    first, mark, rest = plain.split(b"\n\n")
    assert json.loads(first[6:])["choices"][0]["finish_reason"] == "length"
    assert (mark, rest) == (b"data: [DONE]", b"")
    counted = writing.Chunks(Started("g", "m"), 5, include_usage=True).last(finished)
    usage = json.loads(counted.split(b"\n\n")[1][6:])
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_errors_say_what_the_clients_look_for() -> None:
    status, body = writing.error_of(InvalidRequest.field("n", "is not supported"))
    assert (status, body["error"]["param"], body["error"]["type"]) == (
        400,
        "n",
        "invalid_request_error",
    )
    status, body = writing.error_of(ResourceExhausted("Spent.", reason="BUDGET_SPENT"))
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")


def test_halves_of_characters_are_made_whole() -> None:
    body = reading.body_of(
        b'{"messages": [{"role": "user", "content": "a\\ud800b \\ud83d\\ude00"}]}'
    )
    said = reading.chat(body).messages[0].text
    assert said == "a\ufffdb \U0001f600"
    said.encode()


def test_a_responses_events_have_the_same_numbers_each_time() -> None:
    def told() -> list[bytes]:
        response = responses.Response(Started("gen_1", "m"), 5, {})
        made = list(response.begin())
        for piece in (Text("Hello"), ToolDelta(0, "c", "f", ""), ToolDelta(0, "", "", "{}")):
            made += response.piece(piece)
        made += response.end(Finished("tool_calls", Usage(1, 2)))
        assert [number for number, _ in made] == list(range(len(made)))
        return [data for _, data in made]

    assert told() == told()
    last = json.loads(told()[-1].partition(b"data: ")[2])
    assert [each["type"] for each in last["response"]["output"]] == ["message", "function_call"]
    assert last["response"]["output"][1]["arguments"] == "{}"
    assert last["response"]["usage"]["total_tokens"] == 3
