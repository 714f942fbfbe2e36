"""REST through the real Envoy."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.gateway import backend
from tests.gateway.conftest import BODY_BYTES, SHORT, Edge, until
from tests.gateway.tokens import Keys, write_jwks

pytestmark = pytest.mark.asyncio(loop_scope="session")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def refused(response: aiohttp.ClientResponse, status: int, code: int, reason: str) -> Any:
    """Check a refusal's whole shape, and give back the metadata of its ErrorInfo."""
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/json"
    body = json.loads(text)
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == code
    assert "upstream" not in text
    assert "connect" not in body["message"]
    info = body["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["domain"]) == (reason, "plexus")
    metadata = info.get("metadata", {})
    if "x-request-id" in response.headers and "request_id" in metadata:
        assert metadata["request_id"] == response.headers["x-request-id"]
    return metadata


async def test_a_call_and_the_headers_it_brings(edge: Edge) -> None:
    sent = {
        **edge.bearer(),
        "x-plexus-assertion": "forged",
        "X-Plexus-Tenant": "forged",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-request-id": "mine",
        "grpc-timeout": "1n",
        "traceparent": TRACE,
    }
    async with edge.http.get(f"{edge.url}/v1/agents/agt_ok", headers=sent) as response:
        assert response.status == 200
        agent = (await response.json())["agent"]
        request_id = response.headers["x-request-id"]
        assert response.headers["cache-control"] == "no-store"
    # Absent values are printed, by their names in the contract.
    assert agent["agent_id"] == "agt_ok"
    assert agent["display_name"] == ""
    seen = edge.backend.last("GetAgent")
    assert not [name for name in seen if name.startswith("x-plexus-")]
    assert "x-envoy-upstream-rq-timeout-ms" not in seen
    assert seen["x-request-id"] == request_id != "mine"
    assert seen["traceparent"] == TRACE
    # Forwarded: the services verify it again.
    assert seen["authorization"] == sent["authorization"]


async def test_absent_messages_and_lists(edge: Edge) -> None:
    async with edge.http.get(f"{edge.url}/v1/agents", headers=edge.bearer()) as response:
        assert await response.json() == {"agents": [], "next_page_token": ""}
    async with edge.http.get(f"{edge.url}/v1/runs/run_1", headers=edge.bearer()) as response:
        run = (await response.json())["run"]
    assert run["state"] == "RUN_STATE_UNSPECIFIED"
    assert "failure" not in run


@pytest.mark.parametrize(
    ("method", "path", "rpc"),
    [
        ("GET", "/v1/runs/run_1", "GetRun"),
        ("POST", "/v1/runs/run_1:cancel", "CancelRun"),
        ("GET", "/v1/runs/run_1/events", "WatchRun"),
        ("GET", "/.well-known/jwks.json", "GetJwks"),
    ],
)
async def test_neighbouring_paths_find_their_own_rpc(
    edge: Edge, method: str, path: str, rpc: str
) -> None:
    async with edge.http.request(method, edge.url + path, headers=edge.bearer()) as response:
        assert response.status == 200
        await response.read()
    assert edge.backend.seen[-1][0] == rpc


async def test_a_module_error_keeps_its_details(edge: Edge) -> None:
    async with edge.http.get(f"{edge.url}/v1/agents/missing", headers=edge.bearer()) as response:
        assert await refused(response, 404, 5, "NOT_FOUND") == {"resource": "agent"}
        assert (await response.json())["message"] == 'There is no such agent, "missing".'


async def test_a_stream_is_server_sent_events(edge: Edge) -> None:
    url = f"{edge.url}/v1/runs/run_1/events?after_sequence=1"
    async with edge.http.get(url, headers=edge.bearer()) as response:
        assert response.content_type == "text/event-stream"
        text = await response.text()
    events = text.split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [event["sequence"] for event in told] == ["2", "3"]
    # The text holds what would end an event, had it not been escaped; no other member is there.
    assert told[0]["text_delta"] == {"text": "word 2\n\ndata: "}
    assert set(told[0]) == {"sequence", "run_id", "text_delta"}


async def test_each_event_is_sent_as_it_comes(edge: Edge) -> None:
    edge.backend.step.clear()
    url = f"{edge.url}/v1/agents/process"
    async with edge.http.post(url, json={"input": "steps"}, headers=edge.bearer()) as response:
        async with asyncio.timeout(2):
            first = await response.content.readuntil(b"\n\n")
        assert b"run_started" in first
        edge.backend.step.set()
        assert b"run_completed" in await response.content.read()


async def test_a_stream_that_is_refused_has_a_status(edge: Edge) -> None:
    url = f"{edge.url}/v1/agents/process"
    async with edge.http.post(url, json={"input": "refused"}, headers=edge.bearer()) as response:
        await refused(response, 404, 5, "NOT_FOUND")


async def test_an_error_in_mid_stream_is_an_early_end(edge: Edge) -> None:
    url = f"{edge.url}/v1/agents/process"
    async with edge.http.post(url, json={"input": "breaks"}, headers=edge.bearer()) as response:
        assert response.status == 200
        assert (await response.text()).count("data: ") == 1


async def test_a_stream_that_outlives_its_deadline_is_cut(edge: Edge) -> None:
    url, before = f"{edge.url}/v1/agents/process", edge.backend.cancelled
    async with edge.http.post(url, json={"input": "hangs"}, headers=edge.bearer()) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    await until(lambda: edge.backend.cancelled > before)


async def test_a_client_that_leaves_cancels_the_call(edge: Edge) -> None:
    url, before = f"{edge.url}/v1/agents/process", edge.backend.cancelled
    response = await edge.http.post(url, json={"input": "hangs"}, headers=edge.bearer())
    await response.content.readuntil(b"\n\n")
    began = time.monotonic()
    response.close()
    await until(lambda: edge.backend.cancelled > before)
    assert time.monotonic() - began < SHORT["Process"]


async def test_a_slow_module_is_504_at_the_deadline(edge: Edge) -> None:
    began, before = time.monotonic(), edge.backend.cancelled
    async with edge.http.get(f"{edge.url}/v1/agents/slow", headers=edge.bearer()) as response:
        await refused(response, 504, 4, "DEADLINE_EXCEEDED")
    assert SHORT["GetAgent"] - 0.05 < time.monotonic() - began < SHORT["GetAgent"] + 1
    await until(lambda: edge.backend.cancelled > before)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/v1/nope"),
        ("GET", "/v1/runs/run_1:cancel"),
        ("POST", "/plexus.agents.v1.AgentsService/GetAgent"),
        ("POST", "/plexus.history.v1.HistoryService/AppendMessage"),
        ("GET", "/v1/agents/"),
        ("GET", "//v1///nope"),
    ],
)
async def test_what_is_not_declared_is_404(edge: Edge, method: str, path: str) -> None:
    before = len(edge.backend.seen)
    async with edge.http.request(method, edge.url + path, headers=edge.bearer()) as response:
        await refused(response, 404, 12, "UNKNOWN_METHOD")
    assert len(edge.backend.seen) == before


@pytest.mark.parametrize(
    "body", ['{"input": "a"b', "{", "[1]", '{"input": 5}', '{"input": {"a": "\\"quoted\\""}}']
)
async def test_malformed_json_is_400_and_says_where(edge: Edge, body: str) -> None:
    url = f"{edge.url}/v1/agents/process"
    async with edge.http.post(url, data=body, headers=edge.bearer()) as response:
        assert (await refused(response, 400, 3, "INVALID_REQUEST"))["detail"]


@pytest.mark.parametrize("path", ["/v1/agents?bogus=1", "/v1/agents?page_size=x"])
async def test_an_unreadable_address_is_400(edge: Edge, path: str) -> None:
    url = URL(edge.url + path, encoded=True)
    async with edge.http.get(url, headers=edge.bearer()) as response:
        await refused(response, 400, 3, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "path", ["/v1%2fagents", "/v1/agents%2Fprocess", "/v1/a%2fb", "/v1/%2e%2e"]
)
async def test_an_encoded_slash_is_no_slash(edge: Edge, path: str) -> None:
    url = URL(edge.url + path, encoded=True)
    async with edge.http.get(url, headers=edge.bearer()) as response:
        await refused(response, 404, 12, "UNKNOWN_METHOD")


async def test_headers_out_of_bounds(edge: Edge) -> None:
    url = f"{edge.url}/v1/agents"
    async with edge.http.get(url, headers={**edge.bearer(), "with_underscore": "1"}) as response:
        await refused(response, 400, 3, "INVALID_REQUEST")
    big = {f"x-{n}": "x" * 8000 for n in range(5)}
    async with edge.http.get(url, headers={**edge.bearer(), **big}) as response:
        await refused(response, 431, 8, "LIMIT_REACHED")


async def test_a_large_body_is_413(edge: Edge) -> None:
    url = f"{edge.url}/v1/agents/process"

    async def dribble() -> Any:
        for _ in range(3):
            yield b" " * (BODY_BYTES // 2)

    for data in (b" " * (BODY_BYTES + 1), dribble()):
        async with edge.http.post(url, data=data, headers=edge.bearer()) as response:
            await refused(response, 413, 8, "BODY_TOO_LARGE")
    body = json.dumps({"input": "x" * (BODY_BYTES - 100)})
    async with edge.http.post(url, data=body, headers=edge.bearer()) as response:
        assert response.status == 200


async def test_only_good_tokens_get_in(edge: Edge) -> None:
    good = edge.keys.token()
    head, payload, signature = good.split(".")
    bad = {
        "none": None,
        "forged": Keys(edge.keys.kid).token(),
        "of an unknown key": Keys("two").token(),
        "cut": f"{head}.{payload}.{signature[:-4]}AAAA",
        "unsigned": f"{head}.{payload}.",
        "not one": "x",
        "expired": edge.keys.token(lifetime=-30),
        "for others": edge.keys.token(aud="others"),
        "by others": edge.keys.token(iss="https://others.test"),
        "without an end": edge.keys.token(exp=None),
    }
    before = len(edge.backend.seen)
    for name, token in bad.items():
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with edge.http.get(f"{edge.url}/v1/agents", headers=headers) as response:
            assert response.status == 401, name
            await refused(response, 401, 16, "UNAUTHENTICATED")
    # In the address a token would be in every log on the way.
    async with edge.http.get(f"{edge.url}/v1/agents?access_token={good}") as response:
        assert response.status == 401
    assert len(edge.backend.seen) == before


@pytest.mark.parametrize("token", [None, "x", "expired"])
async def test_a_public_rpc_takes_any_caller(edge: Edge, token: str | None) -> None:
    value = edge.keys.token(lifetime=-30) if token == "expired" else token
    headers = {"authorization": f"Bearer {value}"} if value else {}
    async with edge.http.get(f"{edge.url}/.well-known/jwks.json", headers=headers) as response:
        assert response.status == 200


async def test_a_changed_key_set_is_read_without_a_restart(edge: Edge) -> None:
    new, url = Keys("new"), f"{edge.url}/v1/agents"

    async def status(keys: Keys, token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        async with edge.http.get(url, headers=headers) as response:
            return response.status

    old_token, new_token = edge.keys.token(), new.token()
    assert await status(edge.keys, old_token) == 200
    assert await status(new, new_token) == 401
    write_jwks(edge.config.jwks_file, new)
    try:
        await until(lambda: status(new, new_token), 200)
        # The very token that was accepted a moment ago, and so was remembered.
        assert await status(edge.keys, old_token) == 401
    finally:
        write_jwks(edge.config.jwks_file, edge.keys)
        await until(lambda: status(edge.keys, old_token), 200)


async def test_reads_are_repeated_and_writes_are_not(edge: Edge) -> None:
    edge.backend.failures_left, edge.backend.calls = 2, 0
    async with edge.http.get(f"{edge.url}/v1/agents/agt_ok", headers=edge.bearer()) as response:
        assert response.status == 200
    assert edge.backend.calls == 3
    edge.backend.calls = 0
    url = f"{edge.url}/v1/api-keys"
    async with edge.http.post(url, json={}, headers=edge.bearer()) as response:
        assert response.status == 503
    assert edge.backend.calls == 1
    assert backend.OK == "agt_ok"


async def test_browsers_are_told_who_may_call(edge: Edge) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "a"}
    url = f"{edge.url}/plexus.agents.v1.AgentsService/Process"
    for origin in ("http://localhost:5173", "https://console.test"):
        async with edge.http.options(url, headers={"origin": origin, **asked}) as response:
            assert response.status == 200
            assert response.headers["access-control-allow-origin"] == origin
            assert "x-grpc-web" in response.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in response.headers
        # A refusal can be read by the page, too.
        async with edge.http.get(f"{edge.url}/v1/agents", headers={"origin": origin}) as response:
            assert response.status == 401
            assert response.headers["access-control-allow-origin"] == origin
            assert "grpc-status" in response.headers["access-control-expose-headers"]
    before = len(edge.backend.seen)
    evil = {"origin": "https://evil.test", **asked}
    async with edge.http.options(url, headers=evil) as response:
        assert "access-control-allow-origin" not in response.headers
        await refused(response, 404, 12, "UNKNOWN_METHOD")
    assert len(edge.backend.seen) == before


async def test_the_access_log_has_a_line_for_each_request(edge: Edge) -> None:
    url = f"{edge.url}/v1/agents/agt_ok"
    async with edge.http.get(url, headers=edge.bearer(tid="tnt_9", sub="usr_9")) as response:
        request_id = response.headers["x-request-id"]
    async with edge.http.get(f"{edge.url}/healthz") as response:
        assert response.status == 200
    await until(lambda: any(line["request_id"] == request_id for line in edge.logged()))
    line = next(line for line in edge.logged() if line["request_id"] == request_id)
    assert (line["tenant"], line["subject"]) == ("tnt_9", "usr_9")
    assert (line["method"], line["path"]) == ("GET", "/v1/agents/agt_ok")
    assert line["rpc"] == "/plexus.agents.v1.AgentsService/GetAgent"
    assert (line["code"], line["grpc_status"]) == (200, "OK")
    assert line["bytes_out"] > 0
    assert "duration_ms" in line
    assert not [line for line in edge.logged() if line["path"] == "/healthz"]
    assert "Bearer" not in edge.config.access_log_file.read_text()
