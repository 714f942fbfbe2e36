"""How often callers may call, through the real Envoy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from plexus.agents.v1 import agents_service_pb2 as pb
from plexus.agents.v1.agents_service_pb2_grpc import AgentsServiceStub
from plexus.options.v1 import options_pb2

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.process import GatewayProcess
from gateway.render import render
from tests.gateway import grpcweb
from tests.gateway.backend import Backend, backend_at
from tests.gateway.conftest import Edge, configure, until
from tests.gateway.test_render import http_filter, manager
from tests.gateway.test_rest import refused
from tests.gateway.tokens import Keys, write_jwks

pytestmark = pytest.mark.asyncio(loop_scope="session")
# So slow that nothing is filled up again while a test looks; the bursts are 4, 2 and 3.
SLOW = Limits(read=2, write=1, generate=0, login=1, burst_seconds=2)
NONE = Limits(read=0, write=0, generate=0, login=0)


@contextlib.asynccontextmanager
async def limited(
    scratch: Path, contracts: bytes, limits: Limits
) -> AsyncIterator[tuple[str, Keys, Backend]]:
    keys, backend = Keys("one"), backend_at(scratch / "mesh.sock")
    config = configure(scratch, contracts, limits=limits)
    write_jwks(config.jwks_file, keys)
    process = GatewayProcess(config, contracts)
    await backend.start()
    await process.start()
    try:
        await process.wait_ready(15)
        yield f"127.0.0.1:{process.port}", keys, backend
    finally:
        await process.stop(0)
        await backend.stop()


def bearer(keys: Keys, tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer {keys.token(tid=tenant)}"}


def retry_of(details: bytes) -> tuple[str, int]:
    """The reason and the seconds in a gRPC status."""
    status = status_pb2.Status.FromString(details)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    return str(info.reason), int(retry.retry_delay.seconds)


async def drain(http: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    """How many calls pass before one is refused."""
    for passed in range(100):
        async with http.get(url, headers=headers) as response:
            if response.status == 429:
                return passed
            assert response.status == 200
    raise AssertionError("there is no limit")


async def test_a_tenant_has_a_limit_of_each_class(scratch: Path, contracts: bytes) -> None:
    async with limited(scratch, contracts, SLOW) as (at, keys, backend):
        url, one, two = f"http://{at}/v1/agents/agt_ok", *(bearer(keys, t) for t in ("t1", "t2"))
        async with aiohttp.ClientSession() as http:
            assert 4 <= await drain(http, url, one) <= 5
            before = backend.calls
            async with http.get(url, headers=one) as response:
                await refused(response, 429, 8, "RATE_LIMITED")
                assert response.headers["retry-after"] == "1"
                retry = (await response.json())["details"][1]
                assert retry["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
                assert retry["retry_delay"] == "1s"
            await over_grpc(at, http, one)
            assert backend.calls == before
            # Another tenant, another class, a class without a limit, and a little later.
            async with http.get(url, headers=two) as response:
                assert response.status == 200
            cancel = f"http://{at}/v1/runs/run_1:cancel"
            async with http.post(cancel, json={}, headers=one) as response:
                assert response.status == 200
            for _ in range(8):
                process = f"http://{at}/v1/agents/process"
                async with http.post(process, json={"input": "a"}, headers=one) as response:
                    assert response.status == 200

            async def passes() -> int:
                async with http.get(url, headers=one) as response:
                    return response.status

            await until(passes, 200)


async def over_grpc(at: str, http: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """The same refusal, over gRPC and gRPC-Web."""
    async with grpc.aio.insecure_channel(at) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await AgentsServiceStub(channel).GetAgent(
                pb.GetAgentRequest(agent_id="agt_ok"), metadata=tuple(headers.items())
            )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata() or ())
    assert retry_of(bytes(trailers["grpc-status-details-bin"])) == ("RATE_LIMITED", 1)
    path = f"http://{at}/plexus.agents.v1.AgentsService/GetAgent"
    web = await grpcweb.call(http, path, pb.GetAgentRequest(agent_id="agt_ok"), headers=headers)
    assert (web.status, web.messages) == (8, [])


async def test_who_needs_no_token_has_the_limit_of_an_address(
    scratch: Path, contracts: bytes
) -> None:
    async with limited(scratch, contracts, SLOW) as (at, keys, _):

        async def login(http: aiohttp.ClientSession, **headers: str) -> int:
            url = f"http://{at}/v1/users/register"
            async with http.post(url, json={"email": "a"}, headers=headers) as response:
                if response.status == 429:
                    await refused(response, 429, 8, "RATE_LIMITED")
                return response.status

        async with aiohttp.ClientSession() as http:
            told = [await login(http) for _ in range(4)]
            assert told[:2] == [200, 200]
            assert 429 in told
            # Neither a header nor a token makes somebody else of a client.
            told = [await login(http, **{"x-forwarded-for": f"9.9.9.{n}"}) for n in range(3)]
            told += [await login(http, **bearer(keys, f"t{n}")) for n in range(3)]
            assert told.count(429) >= 5
        elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with aiohttp.ClientSession(connector=elsewhere) as http:
            assert await login(http) == 200


async def test_a_call_counts_as_its_contract_says(scratch: Path, contracts: bytes) -> None:
    costly = changed(contracts, "GetAgent", cost=3)
    async with (
        limited(scratch, costly, SLOW) as (at, keys, _),
        aiohttp.ClientSession() as http,
    ):
        headers = bearer(keys, "t1")
        assert await drain(http, f"http://{at}/v1/agents/agt_ok", headers) == 1
        async with http.get(f"http://{at}/v1/agents/agt_ok", headers=headers) as response:
            # The slowest class gives one a second.
            assert response.headers["retry-after"] == "3"
    # One that costs more than a burst must pass at all.
    config = configure(scratch, contracts, limits=SLOW)
    rates = http_filter(render(config, changed(contracts, "GetAgent", cost=9)), "local_ratelimit")
    buckets = {
        each["entries"][0]["value"]: each["token_bucket"]["max_tokens"]
        for each in rates["descriptors"]
    }
    assert buckets == {"READ": 9, "WRITE": 2, "LOGIN": 2}


def changed(contracts: bytes, name: str, **policy: Any) -> bytes:
    """The contracts with something else in one RPC's policy."""
    files = descriptor_pb2.FileDescriptorSet.FromString(contracts)
    for file in files.file:
        for service in file.service:
            for method in service.method:
                if method.name == name:
                    for key, value in policy.items():
                        setattr(method.options.Extensions[options_pb2.policy], key, value)
    return files.SerializeToString()


async def test_without_limits_nothing_counts(contracts: bytes) -> None:
    made = render(configure(Path("/run/gw"), contracts, limits=NONE), contracts)
    names = [each["name"] for each in manager(made)["http_filters"]]
    assert "envoy.filters.http.local_ratelimit" not in names
    assert "plexus.rates" not in json.dumps(made)
    with pytest.raises(GatewayError, match="or 0 for none"):
        Limits(read=-1)


async def test_every_bucket_fills_at_its_rate(contracts: bytes) -> None:
    for rate in (1, 3, 5, 14, 15, 19, 50, 333, 100_000):
        limits = Limits(read=rate)
        rates = http_filter(
            render(configure(Path("/run/gw"), contracts, limits=limits), contracts),
            "local_ratelimit",
        )
        (bucket, _) = [
            each["token_bucket"]
            for each in rates["descriptors"]
            if each["entries"][0]["value"] == "READ"
        ]
        every = float(bucket["fill_interval"].rstrip("s"))
        assert every >= 0.05, "Envoy takes no shorter one"
        assert bucket["tokens_per_fill"] / every == pytest.approx(rate, rel=0.02)
        assert bucket["max_tokens"] == 2 * rate


async def test_a_module_says_when_to_try_again(edge: Edge) -> None:
    async with edge.http.get(f"{edge.url}/v1/agents/busy", headers=edge.bearer()) as response:
        await refused(response, 429, 8, "LIMIT_REACHED")
        assert response.headers["retry-after"] == "7"
    url = f"{edge.url}/v1/agents/process"
    async with edge.http.post(url, json={"input": "busy"}, headers=edge.bearer()) as response:
        assert (response.status, response.headers["retry-after"]) == (429, "7")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await AgentsServiceStub(edge.channel).GetAgent(
            pb.GetAgentRequest(agent_id="busy"), metadata=tuple(edge.bearer().items())
        )
    trailers = dict(caught.value.trailing_metadata() or ())
    assert retry_of(bytes(trailers["grpc-status-details-bin"])) == ("LIMIT_REACHED", 7)
