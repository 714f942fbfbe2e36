"""Strict JSON through the real Envoy: what is unknown is refused, and nothing else."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.api import annotations_pb2
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    struct_pb2,
    wrappers_pb2,
)
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from plexus.agents.v1 import agents_service_pb2
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub

from gateway.config import GatewayConfig
from gateway.contract import parse
from gateway.process import GatewayProcess
from proto.tools.generate import descriptor_set
from services.runtime.strict_json import StrictJson
from tests.contract.conftest import copy_contracts
from tests.gateway.conftest import Edge, configure
from tests.gateway.test_rest import refused
from tests.gateway.tokens import Keys, write_jwks
from tests.support import PORT_OF_ITS_OWN

pytestmark = pytest.mark.asyncio(loop_scope="session")
PLANTED = Path(__file__).parent / "planted" / "shapes.proto"
SERVICE = "plexus.agents.v1.ShapesService"
NAME = "plexus.agents.v1.Shapes"
# Imported by the planted contract, so this process must know them.
IMPORTED = (empty_pb2, field_mask_pb2, struct_pb2, wrappers_pb2)
# How deep a made message goes.
DEPTH = 3
SCALARS: dict[str, tuple[Any, ...]] = {
    "text_value": ("", "some text \n ü 😀"),
    "data": ("AP8H", "AP8="),
    "yes": (True, False),
    "small": (7, "7", 7.0, -1),
    "large": (7, "1152921504606846983", "-5"),
    "larger": ("9223372036854775809", 3),
    "real": (1.5, "NaN", "-Infinity", 1e300, 3),
    "single": (0.25, "0.25"),
    "kind": ("KIND_ROUND", 1, "KIND_UNSPECIFIED"),
    "numbers": ([], [1, "2", 3]),
    "kinds": (["KIND_ROUND", 0],),
    "pairs": ({}, {"a.b": "c", "txet": "", "ü": "x"}),
    "moment": ("2026-01-02T03:04:05.678Z",),
    "length": ("1.5s",),
    "anything": ({"txet": [1, None, {"deep": True}]},),
    "value": (1, "text", {"txet": 1}, [{"txet": 1}]),
    "list": ([1, {"txet": 1}],),
    "mask": ("a.b,c",),
    "wrapped_text": ("text",),
    "wrapped_number": ("7", 7),
    "nothing": ({},),
    "chosen_text": ("text",),
    "maybe": (0, 7),
    "renamed": ("text",),
}


def shape_class() -> type[Message]:
    """The planted message, once this process knows it."""
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(NAME))


@dataclass
class Echoing:
    """A gateway in front of the planted service, and what that was sent."""

    config: GatewayConfig
    contracts: bytes
    url: str
    http: aiohttp.ClientSession
    received: list[bytes]

    @property
    def kind(self) -> type[Message]:
        return shape_class()

    async def send(self, body: str | bytes, path: str = "/v1/shapes", verb: str = "POST") -> Any:
        """The status, the reply and the message that the service got, if it got one."""
        self.received.clear()
        async with self.http.request(verb, self.url + path, data=body) as response:
            reply = await response.json()
        message = self.kind.FromString(self.received[0]) if self.received else None
        return response.status, reply, message


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The contracts with the planted one, which this process knows from then on."""
    scratch = tmp_path_factory.mktemp("shapes")
    roots = copy_contracts(scratch)
    shutil.copy(PLANTED, roots / "plexus" / "agents" / "v1")
    descriptor_set(roots, scratch / "shapes.binpb")
    made = (scratch / "shapes.binpb").read_bytes()
    (file,) = [each for each in parse(made).file if each.name.endswith("shapes.proto")]
    known = descriptor_pb2.FileDescriptorProto()
    known.CopyFrom(file)
    known.ClearField("source_code_info")
    descriptor_pool.Default().AddSerializedFile(known.SerializeToString())
    return made


@pytest.fixture(scope="module")
def run_dir() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gw-"))
    yield made
    shutil.rmtree(made)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def echoing(shapes: bytes, run_dir: Path) -> AsyncIterator[Echoing]:
    received: list[bytes] = []

    async def echo(request: bytes, context: Any) -> bytes:
        received.append(request)
        # Made anew: the transcoder writes a field as often as the body has it.
        return shape_class().FromString(request).SerializeToString()

    server = grpc.aio.server(options=PORT_OF_ITS_OWN)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    StrictJson().register(server)
    checks = health.aio.HealthServicer()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_insecure_port(f"unix:{run_dir}/mesh.sock")
    await server.start()
    config = configure(run_dir, shapes)
    write_jwks(config.jwks_file, Keys("one"))
    process = GatewayProcess(config, shapes)
    await process.start()
    try:
        await process.wait_ready(15)
        async with aiohttp.ClientSession() as http:
            yield Echoing(config, shapes, f"http://127.0.0.1:{process.port}", http, received)
    finally:
        await process.stop(0)
        await server.stop(0)


def made_value(kind: type[Message], chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """JSON of a message with any of its fields set, under either of their names, in any form."""
    body: dict[str, Any] = {}
    # One member of the oneof at most.
    left_out = chance.choice(("chosen_text", "chosen_shape"))
    for field in kind.DESCRIPTOR.fields:
        if field.name != left_out and chance.random() < 0.4:
            name = chance.choice((field.name, field.json_name))
            if field.name in SCALARS:
                body[name] = chance.choice(SCALARS[field.name])
            elif depth < DEPTH:
                body[name] = _nested(field.name, made_value(kind, chance, depth + 1))
    return body


def _nested(name: str, within: dict[str, Any]) -> Any:
    if name == "many_within":
        return [within, {}, within]
    if name == "numbered":
        return {"7": within, "-1": {}}
    return {"any name": within, "text_value": within} if name == "named" else within


@pytest.mark.parametrize("seed", range(60))
async def test_what_the_transcoder_maps_whole_is_let_through(echoing: Echoing, seed: int) -> None:
    body = made_value(echoing.kind, random.Random(seed))
    status, reply, message = await echoing.send(json.dumps(body, ensure_ascii=seed % 2 == 0))
    assert status == 200, reply
    assert message == json_format.ParseDict(body, echoing.kind())


@pytest.mark.parametrize(
    ("body", "meaning"),
    [
        ("", {}),
        ("{}", {}),
        (' { "text_value" : "a" } \n', {"text_value": "a"}),
        ('{"text\\u005fvalue": "a"}', {"text_value": "a"}),
        ('{"textValue": "a", "textValue": "b"}', {"text_value": "b"}),
        ('{"text_value": null, "one_within": null, "many_within": null, "pairs": null}', {}),
        ('{"many_within": []}', {}),
        ('{"other-name": "a"}', {"renamed": "a"}),
        ('{"value": null}', {"value": None}),
        ('{"anything": {"a": {"b": null}}}', {"anything": {"a": {"b": None}}}),
    ],
)
async def test_unusual_bodies_keep_their_meaning(
    echoing: Echoing, body: str, meaning: dict[str, Any]
) -> None:
    status, reply, message = await echoing.send(body)
    assert status == 200, reply
    assert message == json_format.ParseDict(meaning, echoing.kind())


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ('{"txet": 1}', ["txet"]),
        ('{"text-value": 1, "Text_Value": 2}', ["text-value", "Text_Value"]),
        ('{"textvalue": "a"}', ["textvalue"]),
        (
            '{"one_within": {"manyWithin": [{}, {}, {"txet": 1}]}}',
            ["one_within.manyWithin[2].txet"],
        ),
        ('{"numbered": {"7": {"txet": 1}}}', ["numbered['7'].txet"]),
        ('{"named": {"a": {"text_value": "b"}, "c": {"a": {}}}}', ["named['c'].a"]),
        ('{"chosen_shape": {"nothing": {"txet": {}}}}', ["chosen_shape.nothing.txet"]),
        # The first of two equal names is forgotten by most who read JSON.
        ('{"one_within": {"txet": 1}, "one_within": {}}', ["one_within.txet"]),
        ('{"one_within": {"txet": 1}, "oneWithin": null}', ["one_within.txet"]),
        ('{"": 1}', [""]),
    ],
)
async def test_what_is_unknown_is_refused_by_its_path(
    echoing: Echoing, body: str, paths: list[str]
) -> None:
    status, reply, message = await echoing.send(body)
    assert (status, reply["code"], message) == (400, 3, None)
    info, bad = reply["details"]
    assert (info["reason"], info["domain"]) == ("INVALID_REQUEST", "plexus")
    assert [each.get("field", "") for each in bad["field_violations"]] == paths


@pytest.mark.parametrize(
    "body", ['{"text_value": "a",}', "{'text_value': 'a'}", '{text_value: "a"}']
)
async def test_what_is_not_json_is_refused_though_the_transcoder_takes_it(
    echoing: Echoing, body: str
) -> None:
    status, reply, message = await echoing.send(body)
    assert (status, message) == (400, None)
    assert reply["details"][0]["metadata"]["detail"].startswith("line 1, column ")


async def test_a_body_may_be_one_field_of_the_request(echoing: Echoing) -> None:
    path, body = "/v1/shapes/a", '{"kind": "KIND_ROUND"}'
    status, _, message = await echoing.send(body, path, "PUT")
    meaning = {"text_value": "a", "one_within": {"kind": 1}}
    assert (status, message) == (200, json_format.ParseDict(meaning, echoing.kind()))
    status, reply, _ = await echoing.send('{"one_within": {"oops": 1}}', path, "PUT")
    assert reply["details"][1]["field_violations"][0]["field"] == "one_within.oops"
    status, _, message = await echoing.send('{"yes": true}', path, "PATCH")
    assert (status, message) == (200, echoing.kind(text_value="a", yes=True))


async def test_a_refusal_is_one_like_the_others(edge: Edge) -> None:
    url, body = f"{edge.url}/v1/agents/process", {"input": "words", "inptu": "secret"}
    before = len(edge.backend.seen)
    async with edge.http.post(url, json=body, headers=edge.bearer()) as response:
        await refused(response, 400, 3, "INVALID_REQUEST")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "x-request-id" in response.headers
        text = await response.text()
    assert "inptu" in text
    assert "secret" not in text
    # Who has no token is told of that and nothing else.
    async with edge.http.post(url, json=body) as response:
        await refused(response, 401, 16, "UNAUTHENTICATED")
    assert len(edge.backend.seen) == before


async def test_over_grpc_a_newer_client_is_served(edge: Edge) -> None:
    request = agents_service_pb2.GetAgentRequest.FromString(b"\n\x06agt_ok\xfa>\x05newer")
    assert b"newer" in request.SerializeToString()
    stub = AgentsServiceStub(edge.channel)
    reply = await stub.GetAgent(request, metadata=tuple(edge.bearer().items()))
    assert reply.agent.agent_id == "agt_ok"


async def test_nobody_asks_the_question_from_outside(edge: Edge) -> None:
    check: Any = edge.channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(b"", metadata=tuple(edge.bearer().items()))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_module_that_cannot_be_asked_serves_no_bodies(
    echoing: Echoing, scratch: Path
) -> None:
    """The socket is the echoing one, where the check does not know what RegisterUser is."""
    upstreams = dict.fromkeys(echoing.config.upstreams, echoing.config.upstreams["agents"])
    for strict in (True, False):
        folder = scratch / str(strict)
        config = replace(
            echoing.config,
            upstreams=upstreams,
            run_dir=folder,
            jwks_file=folder / "jwks.json",
            strict_json=strict,
        )
        folder.mkdir()
        write_jwks(config.jwks_file, Keys("one"))
        process = GatewayProcess(config, planted_rpc(echoing.contracts))
        await process.start()
        try:
            await process.wait_ready(15)
            url = f"http://127.0.0.1:{process.port}/v1/unheard"
            async with echoing.http.post(url, json={}) as response:
                body = await response.json()
            assert (response.status, body["code"]) == ((503, 14) if strict else (501, 12))
        finally:
            await process.stop(0)


def planted_rpc(contracts: bytes) -> bytes:
    """The contracts with an RPC that no module has heard of."""
    files = parse(contracts)
    (file,) = [each for each in files.file if each.name.endswith("shapes.proto")]
    method = file.service[0].method[0]
    new = file.service[0].method.add()
    new.CopyFrom(method)
    new.name = "Unheard"
    rule = new.options.Extensions[annotations_pb2.http]
    rule.Clear()
    rule.post, rule.body = "/v1/unheard", "*"
    return files.SerializeToString()
