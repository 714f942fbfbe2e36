"""The renderer as a function: what the contracts say is what Envoy is told."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from plexus.errors.v1 import errors_pb2
from plexus.options.v1 import options_pb2

from gateway import contract
from gateway.clusters import name_clusters
from gateway.config import Endpoint, GatewayConfig
from gateway.errors import GatewayError
from gateway.filters import JWT, LOOPBACK_ORIGINS
from gateway.render import render
from gateway.replies import REFUSALS
from gateway.routes import (
    REPEATABLE_RETRIES,
    SAFE_RETRIES,
    STREAM_GRACE_SECONDS,
    specificity,
    template_regex,
)
from tests.gateway.conftest import configure

Json = dict[str, Any]


def manager(rendered: Json) -> Json:
    chain = rendered["static_resources"]["listeners"][0]["filter_chains"][0]
    made: Json = chain["filters"][0]["typed_config"]
    return made


def all_routes(rendered: Json) -> list[Json]:
    made: list[Json] = manager(rendered)["route_config"]["virtual_hosts"][0]["routes"]
    return made


def http_filter(rendered: Json, name: str) -> Json:
    found = [f for f in manager(rendered)["http_filters"] if f["name"].endswith(name)]
    made: Json = found[0]["typed_config"]
    return made


def needs_token(route: Json) -> bool:
    return JWT not in route.get("typed_per_filter_config", {})


@pytest.fixture(scope="session")
def rpcs(contracts: bytes) -> list[contract.Rpc]:
    return contract.rpcs(contract.parse(contracts))


@pytest.fixture(scope="session")
def rendered(contracts: bytes) -> Json:
    return render(configure(Path("/run/gw"), contracts), contracts)


@pytest.fixture(scope="session")
def of_rpc(rendered: Json) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for route in all_routes(rendered):
        found.setdefault(route["name"], []).append(route)
    return found


def test_it_is_json(rendered: Json) -> None:
    assert json.loads(json.dumps(rendered)) == rendered


def test_every_rpc_but_the_internal_ones_has_its_routes(
    rpcs: list[contract.Rpc], of_rpc: dict[str, list[Json]]
) -> None:
    assert any(rpc.internal for rpc in rpcs)
    for rpc in rpcs:
        count = 0 if rpc.internal else 1 + len(rpc.bindings)
        assert len(of_rpc.get(rpc.path, [])) == count, rpc.path


def test_every_route_ends_with_its_deadline(
    rpcs: list[contract.Rpc], of_rpc: dict[str, list[Json]]
) -> None:
    for rpc in rpcs:
        whole = rpc.deadline + (STREAM_GRACE_SECONDS if rpc.streaming else 0)
        for route in of_rpc.get(rpc.path, []):
            action = route["route"]
            duration = action["max_stream_duration"]
            assert float(duration["max_stream_duration"][:-1]) == whole
            assert float(action["idle_timeout"][:-1]) == whole
            native = route["match"].get("path") == rpc.path
            # A gRPC caller may ask for less, and for no more; over REST nobody is asked.
            assert duration.get("grpc_timeout_header_max") == (
                duration["max_stream_duration"] if native else None
            )
            assert ("request_headers_to_remove" in route) == (not (native and rpc.streaming))


def test_public_rpcs_need_no_token_and_all_others_do(
    rpcs: list[contract.Rpc], of_rpc: dict[str, list[Json]]
) -> None:
    assert any(rpc.public for rpc in rpcs)
    for rpc in rpcs:
        for route in of_rpc.get(rpc.path, []):
            assert needs_token(route) != rpc.public, rpc.path


def test_a_route_that_says_nothing_needs_a_token(contracts: bytes) -> None:
    config = configure(Path("/run/gw"), contracts)
    tokens = http_filter(render(config, contracts, '{"keys": []}'), "jwt_authn")
    assert tokens["rules"] == [{"match": {"prefix": "/"}, "requires": {"provider_name": "plexus"}}]
    provider = tokens["providers"]["plexus"]
    assert provider["require_expiration"] is True
    assert provider["forward"] is True
    assert "max_lifetime" not in provider


def test_retries_follow_idempotency(
    rpcs: list[contract.Rpc], of_rpc: dict[str, list[Json]]
) -> None:
    assert {rpc.repeatable for rpc in rpcs if not rpc.internal} == {True, False}
    for rpc in rpcs:
        for route in of_rpc.get(rpc.path, []):
            expected = REPEATABLE_RETRIES if rpc.repeatable else SAFE_RETRIES
            assert route["route"]["retry_policy"]["retry_on"] == expected
    assert {"reset", "unavailable"}.isdisjoint(SAFE_RETRIES.split(","))


def test_the_transcoder_cannot_reach_internal_rpcs(
    rendered: Json, rpcs: list[contract.Rpc]
) -> None:
    coder = http_filter(rendered, "grpc_json_transcoder")
    known = descriptor_pb2.FileDescriptorSet.FromString(
        base64.b64decode(coder["proto_descriptor_bin"])
    )
    reached = {rpc.path for rpc in contract.rpcs(known)}
    assert reached == {rpc.path for rpc in rpcs if not rpc.internal}
    assert not any(file.HasField("source_code_info") for file in known.file)


def test_one_more_rpc_gets_everything_without_an_edit(contracts: bytes) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(contracts)
    file = next(f for f in files.file if f.name == "plexus/agents/v1/agents_service.proto")
    file.message_type.add(name="PingRequest")
    file.message_type.add(name="PingResponse")
    method = file.service[0].method.add(name="Ping")
    method.input_type = ".plexus.agents.v1.PingRequest"
    method.output_type = ".plexus.agents.v1.PingResponse"
    method.options.idempotency_level = descriptor_pb2.MethodOptions.IDEMPOTENT
    policy = method.options.Extensions[options_pb2.policy]
    policy.permission = "agents.ping"
    policy.rate_class = options_pb2.RATE_CLASS_READ
    policy.deadline.FromMilliseconds(2500)
    rule = method.options.Extensions[annotations_pb2.http]
    rule.get = "/v1/ping/{name}"
    rule.additional_bindings.add(post="/v1/ping:now")
    changed = files.SerializeToString()
    made = render(configure(Path("/run/gw"), changed), changed)
    routes = [r for r in all_routes(made) if r["name"].endswith("AgentsService/Ping")]
    assert len(routes) == 3
    for route in routes:
        assert needs_token(route)
        assert route["route"]["max_stream_duration"]["max_stream_duration"] == "2.5s"
        assert route["route"]["retry_policy"]["retry_on"] == REPEATABLE_RETRIES
    paths = [r["match"].get("path") or r["match"]["safe_regex"]["regex"] for r in routes]
    assert paths[0] == "/plexus.agents.v1.AgentsService/Ping"
    assert sorted(paths[1:]) == ["/v1/ping/[^/]+", "/v1/ping:now"]


def test_an_rpc_without_a_policy_is_refused(contracts: bytes) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(contracts)
    file = next(f for f in files.file if f.name == "plexus/agents/v1/agents_service.proto")
    file.service[0].method.add(name="Ping")
    with pytest.raises(GatewayError, match="Ping declares no access or no deadline"):
        contract.rpcs(files)


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/v1/runs/{run_id}", "/v1/runs/run_1", True),
        ("/v1/runs/{run_id}", "/v1/runs/run_1/events", False),
        ("/v1/runs/{run_id}", "/v1/runs/", False),
        ("/v1/runs/{run_id}:cancel", "/v1/runs/run_1:cancel", True),
        ("/v1/runs/{run_id}:cancel", "/v1/runs/run_1", False),
        ("/v1/runs/{run_id}/events", "/v1/runs/run_1/events", True),
        ("/.well-known/{file}", "/Xwell-known/a", False),
        ("/v1/{name=projects/*/sets/*}", "/v1/projects/a/sets/b", True),
        ("/v1/{name=projects/*/sets/*}", "/v1/projects/a/b/sets/b", False),
        ("/v1/files/{path=**}", "/v1/files/a/b/c", True),
    ],
)
def test_templates_match_what_they_say(template: str, path: str, matches: bool) -> None:
    assert bool(re.fullmatch(template_regex(template), path)) == matches


def test_the_most_specific_template_comes_first() -> None:
    templates = ["/v1/users/{id}", "/v1/users/{id}:lock", "/v1/users/profile", "/v1/{any=**}"]
    ordered = sorted(templates, key=specificity)
    assert ordered == ["/v1/users/profile", "/v1/users/{id}:lock", "/v1/users/{id}", "/v1/{any=**}"]


def test_modules_at_the_same_place_share_a_cluster() -> None:
    one, two = Endpoint(path=Path("/run/a")), Endpoint(host="10.0.0.1", port=50051)
    named = name_clusters({"llm": [two], "agents": [one], "history": [one]})
    assert named == {"agents": "agents+history", "history": "agents+history", "llm": "llm"}


def test_clusters_are_resilient_and_resolve_names(contracts: bytes) -> None:
    base = configure(Path("/run/gw"), contracts)
    replicas = [Endpoint(host="llm-0.llm", port=1), Endpoint(host="llm-1.llm", port=1)]
    config = configure(Path("/run/gw"), contracts, upstreams={**base.upstreams, "llm": replicas})
    clusters = {c["name"]: c for c in render(config, contracts)["static_resources"]["clusters"]}
    assert len(clusters) == 2
    assert clusters["llm"]["type"] == "STRICT_DNS"
    for cluster in clusters.values():
        assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
        assert cluster["common_lb_config"]["update_merge_window"] == "0s"
        assert "outlier_detection" not in cluster
        assert cluster["health_checks"][0]["no_traffic_interval"] == "0.25s"


def test_bodies_are_asked_about_where_the_rpc_is_served(contracts: bytes) -> None:
    base = configure(Path("/run/gw"), contracts)
    upstreams = {**base.upstreams, "llm": [Endpoint(path=Path("/run/llm.sock"))]}
    made = render(configure(Path("/run/gw"), contracts, upstreams=upstreams), contracts)
    asked: dict[str, Json] = {}
    for route in all_routes(made):
        own = route.get("typed_per_filter_config", {}).get("envoy.filters.http.ext_authz")
        if own:
            asked[route["name"]] = own["check_settings"]
            with_body = [h for h in route["match"]["headers"] if h["name"] == ":method"]
            assert with_body[0]["string_match"]["exact"] not in ("GET", "DELETE")
    service = http_filter(made, "ext_authz")["grpc_service"]
    others = sorted(base.upstreams.keys() - {"llm"})
    assert service["envoy_grpc"]["cluster_name"] == "+".join(others)
    register = asked["/plexus.identity.v1.IdentityService/RegisterUser"]
    assert "grpc_service" not in register
    assert register["context_extensions"]["body"] == "*"
    generate = asked["/plexus.llm.v1.LlmService/Generate"]
    assert generate["grpc_service"]["envoy_grpc"]["cluster_name"] == "llm"
    # Bytes as they are have no fields.
    assert "/plexus.ingest.v1.UploadService/WriteUpload" not in asked
    assert "/plexus.ingest.v1.UploadService/CreateUpload" in asked
    loose = render(configure(Path("/run/gw"), contracts, strict_json=False), contracts)
    assert "ext_authz" not in json.dumps(loose)


def test_only_streams_of_the_client_pass_the_bound_on_bodies(contracts: bytes) -> None:
    made = render(configure(Path("/run/gw"), contracts), contracts)
    free = {
        route["match"].get("path")
        for route in all_routes(made)
        if "envoy.filters.http.body_size_limit" in route.get("typed_per_filter_config", {})
    }
    assert free == {
        rpc.path for rpc in contract.rpcs(contract.parse(contracts)) if rpc.client_streaming
    }
    assert "/plexus.ingest.v1.DocumentService/SendDocument" in free


def test_an_rpc_without_a_rate_class_is_refused(contracts: bytes) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(contracts)
    file = next(f for f in files.file if f.name == "plexus/agents/v1/agents_service.proto")
    file.service[0].method[0].options.Extensions[options_pb2.policy].ClearField("rate_class")
    with pytest.raises(GatewayError, match="declares no rate class"):
        contract.rpcs(files)


def test_every_refusal_has_a_reason_of_the_contract() -> None:
    for refusal in REFUSALS:
        assert f"ERROR_REASON_{refusal.reason}" in errors_pb2.ErrorReason.keys()  # noqa: SIM118  an enum has no `in`


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:5173", True),
        ("http://localhost.evil.test", False),
        ("http://evil.test/localhost", False),
        ("http://127.0.0.1:80.evil.test", False),
    ],
)
def test_only_loopback_looks_like_loopback(origin: str, allowed: bool) -> None:
    assert bool(re.fullmatch(LOOPBACK_ORIGINS, origin)) == allowed


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Endpoint, "either a Unix socket or a host"),
        (lambda: Endpoint(path=Path("/a"), host="b", port=1), "either a Unix socket or a host"),
        (lambda: Endpoint(host="b"), "no port"),
        (lambda: Endpoint(path=Path("/" + "x" * 107)), "too long for a Unix socket"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused(make: Any, words: str) -> None:
    with pytest.raises(GatewayError, match=words):
        make()


def test_a_module_without_an_endpoint_is_refused(contracts: bytes) -> None:
    base = configure(Path("/run/gw"), contracts)
    fewer = {name: at for name, at in base.upstreams.items() if name != "llm"}
    config: GatewayConfig = configure(Path("/run/gw"), contracts, upstreams=fewer)
    with pytest.raises(GatewayError, match="the module llm is missing"):
        render(config, contracts)
    with pytest.raises(GatewayError, match="at least one endpoint"):
        configure(Path("/run/gw"), contracts, upstreams={"llm": []})
