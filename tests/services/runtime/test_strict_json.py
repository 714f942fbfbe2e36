"""The check of REST bodies by itself; tests/gateway/test_strict.py has it behind the real Envoy."""

from __future__ import annotations

import json

import grpc
import pytest
from plexus.gateway.v1.check_pb2 import (
    BodyCheckRequest,
    BodyCheckResponse,
    CheckAttributes,
    CheckedHttp,
    CheckedRequest,
)
from plexus.llm.v1 import generation_pb2

from services.runtime.strict_json import SERVICE, StrictJson
from tests.support import PORT_OF_ITS_OWN

RPC = "/plexus.llm.v1.LlmService/Generate"
KNOWN = generation_pb2.GenerateRequest.DESCRIPTOR.fields_by_name


def fields(body: object, field: str = "*") -> list[str]:
    """The paths that a body is refused for."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = StrictJson().refuse(RPC, field, raw)
    return [] if error is None else [each.field for each in error.violations]


def detail(body: bytes) -> str:
    """Why a body is not JSON."""
    error = StrictJson().refuse(RPC, "*", body)
    assert error is not None
    return error.metadata["detail"]


def test_every_field_has_its_two_names() -> None:
    for field in KNOWN.values():
        assert fields({field.name: None, field.json_name: None}) == []
    assert fields({"messages": [{"text": "a"}, {"txet": "b"}], "modle": 1}) == [
        "messages[1].txet",
        "modle",
    ]


def test_a_body_may_be_a_list_or_no_message_at_all() -> None:
    assert fields([{"text": "a"}, {"txet": "b"}], "messages") == ["[1].txet"]
    assert fields({"any": "thing"}, "model") == []


def test_what_is_of_the_wrong_kind_is_left_to_others() -> None:
    assert fields({"messages": {"text": 1}, "model": {"a": [1]}, "temperature": "x"}) == []
    assert fields([1, "a", None]) == []


def test_a_refusal_has_a_bound_however_much_is_wrong() -> None:
    found = fields({f"{number:04}{'x' * 1000}": 1 for number in range(5000)})
    assert len(found) == 50
    assert max(map(len, found)) == 64


def test_a_name_that_is_no_text_can_be_told() -> None:
    assert fields(b'{"\\ud800a": 1}') == ["?a"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "line 1, column 2"),
        (b'{"model":\n "a"} x', "line 2, column 7"),
        (b"\xff", "it is not UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[" + b"[]," * 100_000 + b"[]]", "it has more than 100000 values"),
        (b'{"model":"' + b'\\",' * 9 + b'",' + b'"model":1,' * 100_000 + b'"model":1}', "it has"),
    ],
    ids=["cut", "trailing", "latin", "deep", "many lists", "many names"],
)
def test_what_cannot_be_read_is_refused_with_where(body: bytes, why: str) -> None:
    assert detail(body).startswith(why)


def test_a_long_text_may_hold_anything() -> None:
    text = '[]{},\\"' * 100_000
    assert fields({"messages": [{"text": text}]}) == []
    assert fields({"model": "9" * 10_000}) == []


def test_an_rpc_that_is_not_here_is_not_guessed() -> None:
    for rpc in ("/plexus.llm.v1.LlmService/Nope", "/plexus.nope.v1.Nope/Get", ""):
        with pytest.raises(KeyError):
            StrictJson().refuse(rpc, "*", b"{}")
    with pytest.raises(KeyError):
        StrictJson().refuse(RPC, "nope", b"{}")


def request(body: bytes, rpc: str = RPC) -> BodyCheckRequest:
    return BodyCheckRequest(
        attributes=CheckAttributes(
            request=CheckedRequest(http=CheckedHttp(raw_body=body)),
            context_extensions={"rpc": rpc, "body": "*"},
        )
    )


async def test_it_answers_under_envoys_name() -> None:
    server = grpc.aio.server(options=PORT_OF_ITS_OWN)
    StrictJson().register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary(
            f"/{SERVICE}/Check",
            request_serializer=BodyCheckRequest.SerializeToString,
            response_deserializer=BodyCheckResponse.FromString,
        )
        assert await check(request(b'{"model": "a"}')) == BodyCheckResponse()
        denied = await check(request(b'{"modle": "a"}'))
        assert (denied.status.code, denied.denied_response.status.code) == (3, 400)
        assert json.loads(denied.denied_response.body)["code"] == 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(request(b"{}", "/plexus.llm.v1.LlmService/Nope"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)
