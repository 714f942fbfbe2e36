"""What tests of several modules share: a served set of modules, and callers of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.app import serve
from services.runtime.clients import Clients
from services.runtime.credentials import MeshSigner
from services.runtime.crypto import MasterKey
from services.runtime.server import Server
from services.runtime.settings import Settings

# gRPC shares a port with whoever else took it unless it is told not to, be it another test.
PORT_OF_ITS_OWN: Sequence[tuple[str, int]] = (("grpc.so_reuseport", 0),)


def settings_in(folder: Path, **values: object) -> Settings:
    """Settings for a data directory of a test; nothing of the environment's is read."""
    settings = Settings.model_validate({"data_dir": folder, "drain_seconds": 0, **values})
    # The one is in the other only where its path is not too long for a socket.
    for each in (folder, settings.run_dir):
        each.mkdir(parents=True, exist_ok=True)
    return settings


@dataclass(frozen=True)
class Served:
    """Modules that are being served, and channels to them as one service has to another."""

    settings: Settings
    server: Server
    clients: Clients


@asynccontextmanager
async def served(settings: Settings, modules: Sequence[str]) -> AsyncIterator[Served]:
    """Serve modules on a Unix socket, with everything real around them."""
    async with serve(settings, modules) as server:
        key = MasterKey.load(settings.directory / "master.key").derive("mesh")
        clients = Clients(dict.fromkeys(modules, f"unix:{settings.socket}"), MeshSigner(key))
        try:
            yield Served(settings, server, clients)
        finally:
            await clients.close()
