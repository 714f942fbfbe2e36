"""The gateway in front of a mesh: its addresses from the table, its keys from identity."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from google.protobuf.json_format import MessageToDict
from plexus.identity.v1 import identity_service_pb2
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from gateway.config import Bounds, Endpoint, GatewayConfig, Limits
from gateway.process import GatewayProcess, check_port
from services.app import MODULES
from services.runtime import log
from services.runtime.credentials import AUDIENCE, ISSUER
from services.runtime.resilience import tls
from services.runtime.settings import Settings
from services.runtime.tasks import Tasks
from services.runtime.topology import Topology

_logger = log.get(__name__)
_DESCRIPTORS = Path(__file__).resolve().parents[1] / "generated" / "plexus.binpb"
_READY_SECONDS = 60.0
_KEYS_SECONDS = 2.0
_LOGS_SECONDS = 60.0
_GRACE_SECONDS = 2.0


class Edge:
    """Envoy, kept up and told of new keys until the mesh stops."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        """Prepare it.

        Raises:
            GatewayError: The port is taken, or a path too long.
        """
        self._settings = settings
        self._target = topology.target("identity")
        self._process = GatewayProcess(_config(settings, topology), _DESCRIPTORS.read_bytes())
        self._tasks = Tasks()
        check_port(settings.host, settings.port)

    async def open_until(
        self, stop: asyncio.Event, opened: Callable[[], None] = lambda: None
    ) -> None:
        """Start it, say when every module is reached through it, and return when told to stop.

        Raises:
            GatewayError: It does not start, or a module does not answer for a minute.
        """
        opening = asyncio.create_task(self._open())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                opened()
                await stopped
        finally:
            for task in (opening, stopped):
                task.cancel()
            await asyncio.wait({opening, stopped})

    async def _open(self) -> None:
        async with self._identity() as identity:
            await self._write_keys(identity)
        self._tasks.keep_running("gateway.keys", self._follow_keys)
        await self._process.start()
        await self._process.wait_ready(_READY_SECONDS)
        self._tasks.keep_running("gateway", self._keep_up)
        self._tasks.keep_running("gateway.logs", self._rotate)

    async def stop(self) -> None:
        """Let calls end, then end it."""
        await self._tasks.stop()
        await self._process.stop(_GRACE_SECONDS)

    @asynccontextmanager
    async def _identity(self) -> AsyncIterator[IdentityServiceStub]:
        folder = self._settings.tls_dir
        if folder is None or self._target.startswith("unix:"):
            channel = grpc.aio.insecure_channel(self._target)
        else:
            credentials = tls.channel_credentials(tls.Certificates(folder))
            channel = grpc.aio.secure_channel(
                self._target, credentials, options=tls.CHANNEL_OPTIONS
            )
        async with channel:
            yield IdentityServiceStub(channel)

    async def _follow_keys(self) -> None:
        """Hand new signing keys to the gateway within seconds, long before they sign."""
        async with self._identity() as identity:
            while True:
                await asyncio.sleep(_KEYS_SECONDS)
                await self._write_keys(identity)

    async def _write_keys(self, identity: IdentityServiceStub) -> None:
        reply = await identity.GetJwks(
            identity_service_pb2.GetJwksRequest(), timeout=_READY_SECONDS, wait_for_ready=True
        )
        text = json.dumps(MessageToDict(reply))
        file = _keys_file(self._settings)
        if file.exists() and file.read_text() == text:
            return
        file.parent.mkdir(exist_ok=True, parents=True, mode=0o700)
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(file)

    async def _keep_up(self) -> None:
        """Start it again when it ends; the caller's back-off keeps that from spinning."""
        status = await self._process.wait()
        _logger.error("gateway_ended", status=status)
        await self._process.start()
        await self._process.wait_ready(_READY_SECONDS)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_LOGS_SECONDS)
            await self._process.rotate_logs()


def _config(settings: Settings, topology: Topology) -> GatewayConfig:
    origins = tuple(each.strip() for each in settings.cors_origins.split(",") if each.strip())
    return GatewayConfig(
        upstreams={
            module: tuple(
                Endpoint(path=each.path) if each.path else Endpoint(host=each.host, port=each.port)
                for each in topology.addresses(module)
            )
            for module in MODULES
        },
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_file=_keys_file(settings),
        run_dir=settings.run_dir,
        host=settings.host,
        port=settings.port,
        cors_origins=origins,
        access_log=settings.directory / "logs" / "access.log",
        bounds=Bounds(body_bytes=settings.max_body_bytes),
        limits=Limits(
            read=settings.rate_read,
            write=settings.rate_write,
            generate=settings.rate_generate,
            login=settings.rate_login,
        ),
        strict_json=settings.strict_json,
        tls_dir=settings.tls_dir,
    )


def _keys_file(settings: Settings) -> Path:
    # In a folder of its own: the gateway watches the folder for renames.
    return settings.run_dir / "keys" / "jwks.json"
