"""The real Envoy in front of the scripted backend: started once, asked by every test."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2
from plexus.options.v1 import options_pb2

from gateway import contract
from gateway.config import Bounds, Endpoint, GatewayConfig
from gateway.process import GatewayProcess
from tests.gateway.backend import Backend, backend_at
from tests.gateway.tokens import AUDIENCE, ISSUER, Keys, write_jwks

CONTRACTS = Path(__file__).resolve().parents[2] / "generated" / "plexus.binpb"
BODY_BYTES = 64 * 1024
# Deadlines short enough to be waited for; the others are as the contracts have them.
SHORT = {"GetAgent": 0.4, "Process": 0.5}


@pytest.fixture(scope="session")
def contracts() -> bytes:
    return CONTRACTS.read_bytes()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short name: the path of a Unix socket has 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="gw-"))
    yield made
    shutil.rmtree(made)


async def until(ask: Callable[[], Any], answer: object = True, patience: float = 15) -> None:
    """Ask, or await, again and again until the answer is the one that is wanted."""
    end = time.monotonic() + patience
    while True:
        told = ask()
        if inspect.isawaitable(told):
            told = await told
        if told == answer:
            return
        assert time.monotonic() < end, f"still {told!r} after {patience} s"
        await asyncio.sleep(0.01)


def configure(run_dir: Path, contracts: bytes, **changes: Any) -> GatewayConfig:
    """A configuration for tests: any free port, every module on one socket."""
    modules = {rpc.module for rpc in contract.rpcs(contract.parse(contracts))}
    mesh = [Endpoint(path=run_dir / "mesh.sock")]
    values: dict[str, Any] = {
        "upstreams": dict.fromkeys(modules, mesh),
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks_file": run_dir / "jwks.json",
        "run_dir": run_dir,
        "port": 0,
        "concurrency": 1,
        **changes,
    }
    return GatewayConfig(**values)


def hasten(contracts: bytes) -> bytes:
    """The same contracts with some deadlines shortened."""
    files = descriptor_pb2.FileDescriptorSet.FromString(contracts)
    for file in files.file:
        for service in file.service:
            for method in service.method:
                if method.name in SHORT:
                    deadline = method.options.Extensions[options_pb2.policy].deadline
                    deadline.FromMilliseconds(int(SHORT[method.name] * 1000))
    return files.SerializeToString()


@dataclass
class Edge:
    """A running gateway and what stands behind it."""

    process: GatewayProcess
    config: GatewayConfig
    backend: Backend
    keys: Keys
    http: aiohttp.ClientSession
    channel: grpc.aio.Channel

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.process.port}"

    def bearer(self, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys.token(**claims)}"}

    def logged(self) -> list[dict[str, Any]]:
        # Envoy writes a block at a time, so the last line may be half there.
        whole, _, _ = self.config.access_log_file.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edge(contracts: bytes) -> AsyncIterator[Edge]:
    run_dir = Path(tempfile.mkdtemp(prefix="gw-"))
    keys = Keys("one")
    config = configure(
        run_dir,
        contracts,
        bounds=Bounds(body_bytes=BODY_BYTES),
        cors_origins=("https://console.test",),
    )
    write_jwks(config.jwks_file, keys)
    backend = backend_at(run_dir / "mesh.sock")
    await backend.start()
    process = GatewayProcess(config, hasten(contracts))
    await process.start()
    try:
        await process.wait_ready(10)
        target = f"127.0.0.1:{process.port}"
        async with aiohttp.ClientSession() as http, grpc.aio.insecure_channel(target) as channel:
            yield Edge(process, config, backend, keys, http, channel)
    finally:
        await process.stop(0)
        await backend.stop()
        shutil.rmtree(run_dir)
