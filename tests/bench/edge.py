"""The gateway as it is rendered, with one route more: to the peer, behind the same checks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.config import Endpoint, GatewayConfig, Limits
from gateway.process import envoy_path
from gateway.render import render
from gateway.shapes import Json, typed
from services.app import MODULES
from services.runtime.credentials import AUDIENCE, ISSUER
from tests.bench.process import ROOT
from tests.e2e.mesh import free_port

_DESCRIPTORS = ROOT / "generated" / "plexus.binpb"
_LEASH = ROOT / "gateway" / "leash.py"
_OWN_FILTERS = ("grpc_json_transcoder", "grpc_web", "ext_authz")


@asynccontextmanager
async def edge(
    folder: Path, socket: Path, peer: Path, jwks: Path, *, strict: bool
) -> AsyncIterator[tuple[str, int]]:
    """Envoy before the modules on a socket and the peer on another; its address and its id."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = GatewayConfig(
        upstreams={module: (Endpoint(path=socket),) for module in MODULES},
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_file=jwks,
        run_dir=folder,
        port=port,
        limits=Limits(read=0, write=0, generate=0, login=0),
        strict_json=strict,
    )
    rendered = render(config, _DESCRIPTORS.read_bytes(), jwks.read_text())
    _add_peer(rendered, peer)
    file = folder / "envoy.json"
    file.write_text(json.dumps(rendered))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(envoy_path())),
        *("--config-path", str(file), "--log-path", str(folder / "envoy.log")),
        *("--concurrency", str(config.concurrency), "--disable-hot-restart"),
        *("--file-flush-interval-msec", "250", "--log-level", "warning"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _listens(port)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        await process.wait()


def _add_peer(rendered: Json, peer: Path) -> None:
    """The peer speaks HTTP/1.1; what is done to bodies for our modules' sake is off for it."""
    resources = rendered["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    there = {each["name"] for each in manager["http_filters"]}
    off = typed("config.route.v3.FilterConfig", disabled=True)
    names = [f"envoy.filters.http.{name}" for name in _OWN_FILTERS]
    manager["route_config"]["virtual_hosts"][0]["routes"].insert(
        0,
        {
            "name": "peer",
            "match": {"prefix": "/peer/"},
            "route": {"cluster": "peer", "timeout": "60s"},
            "typed_per_filter_config": {name: off for name in names if name in there},
        },
    )
    address = {"address": {"pipe": {"path": str(peer)}}}
    resources["clusters"].append(
        {
            "name": "peer",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "peer",
                "endpoints": [{"lb_endpoints": [{"endpoint": address}]}],
            },
        }
    )


async def _listens(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                line = await reader.readline()
                writer.close()
                if b" 200 " in line:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)
