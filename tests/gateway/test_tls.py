"""The gateway and modules on TCP: certificates both ways, and what is not believed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest

from gateway.config import Endpoint
from gateway.errors import GatewayError
from gateway.process import GatewayProcess
from gateway.render import render
from tests.certificates import Authority
from tests.gateway.backend import Backend, backend_at
from tests.gateway.conftest import configure, until
from tests.gateway.tokens import Keys, write_jwks

pytestmark = pytest.mark.asyncio(loop_scope="session")


@contextlib.asynccontextmanager
async def behind(
    scratch: Path, contracts: bytes, backends: list[Backend], *, tls: bool = True
) -> AsyncIterator[tuple[GatewayProcess, str, dict[str, str]]]:
    """A gateway in front of backends on TCP: the process, an address and a token."""
    keys = Keys("one")
    for backend in backends:
        await backend.start()
    places = [Endpoint(host="localhost", port=backend.port) for backend in backends]
    base = configure(scratch, contracts)
    config = configure(
        scratch,
        contracts,
        upstreams=dict.fromkeys(base.upstreams, places),
        tls_dir=scratch / "tls" if tls else None,
    )
    write_jwks(config.jwks_file, keys)
    process = GatewayProcess(config, contracts)
    await process.validate()
    await process.start()
    try:
        yield process, "/v1/agents/agt_ok", {"authorization": f"Bearer {keys.token()}"}
    finally:
        await process.stop(0)
        for backend in backends:
            await backend.stop()


async def status(process: GatewayProcess, path: str, headers: dict[str, str]) -> int:
    """The status of one call on a connection of its own."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{process.port}{path}", headers=headers) as response,
    ):
        return response.status


async def test_replicas_over_tls_and_a_renewal(scratch: Path, contracts: bytes) -> None:
    old, new = Authority(), Authority()
    old.write(scratch / "tls")
    backends = [backend_at(scratch / f"{n}.sock", old.serving()) for n in range(2)]
    async with behind(scratch, contracts, backends) as (process, path, headers):
        await process.wait_ready(15)

        async def both_serve() -> bool:
            assert await status(process, path, headers) == 200
            return all(backend.calls for backend in backends)

        await until(both_serve)
        assert (await ask_strictly(process, headers)) == 400
        # Modules with certificates of another authority alone: believed once the gateway has it.
        for backend in backends:
            await backend.stop()
            backend.credentials = new.serving()
            await backend.start()
        assert await status(process, path, headers) == 503
        new.write(scratch / "tls")
        await until(lambda: status(process, path, headers), 200, 10)


async def ask_strictly(process: GatewayProcess, headers: dict[str, str]) -> int:
    """The status of a call with an unknown field: the check goes the same way."""
    url = f"http://127.0.0.1:{process.port}/v1/agents/process"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json={"txet": "a"}, headers=headers) as response,
    ):
        return response.status


@pytest.mark.parametrize("defect", ["another authority", "another name", "plain text"])
async def test_who_is_not_known_is_not_spoken_to(
    scratch: Path, contracts: bytes, defect: str
) -> None:
    ours, theirs = Authority(), Authority()
    ours.write(scratch / "tls")
    credentials = {
        "another authority": grpc.ssl_server_credentials([theirs.issue()], ours.certificate, True),
        "another name": ours.serving("elsewhere"),
        "plain text": ours.serving(),
    }[defect]
    backend = backend_at(scratch / "a.sock", credentials)
    tls = defect != "plain text"
    async with behind(scratch, contracts, [backend], tls=tls) as (process, path, headers):
        with pytest.raises(GatewayError, match="no healthy module"):
            await process.wait_ready(1.5)
        assert await status(process, path, headers) == 503
        assert backend.calls == 0


async def test_a_unix_socket_has_no_tls(contracts: bytes) -> None:
    base = configure(Path("/run/gw"), contracts)
    far = [Endpoint(host="10.0.0.1", port=1)]
    config = configure(
        Path("/run/gw"),
        contracts,
        tls_dir=Path("/run/tls"),
        upstreams={**base.upstreams, "llm": far},
    )
    secured = {
        cluster["name"]: "transport_socket" in cluster
        for cluster in render(config, contracts)["static_resources"]["clusters"]
    }
    assert secured.pop("llm") is True
    assert set(secured.values()) == {False}
    mixed = [*far, Endpoint(path=Path("/run/a"))]
    config = configure(Path("/run/gw"), contracts, upstreams={**base.upstreams, "llm": mixed})
    with pytest.raises(GatewayError, match="mix Unix sockets and hosts"):
        render(config, contracts)
