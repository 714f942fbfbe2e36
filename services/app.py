"""The composition root: which modules there are, and how one process serves some of them."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from services.runtime import telemetry
from services.runtime.clients import Clients
from services.runtime.contract import module_methods
from services.runtime.credentials import MeshSigner, TokenVerifier
from services.runtime.crypto import MasterKey
from services.runtime.db import Database
from services.runtime.module import Build, ModuleContext
from services.runtime.server import Server
from services.runtime.settings import Settings, unix_target
from services.runtime.tasks import Tasks
from services.trust import IdentityTrust

_LAST_CALLS_SECONDS = 2.0
MODULES = ("identity", "llm", "history", "agents", "monitor")


@asynccontextmanager
async def serve(settings: Settings, names: Sequence[str] = MODULES) -> AsyncIterator[Server]:
    """Serve modules on the settings' socket while the block runs, then stop in order.

    The order of a stop: tell the gateway, let calls finish, then workers, then modules, then
    channels and the database. Closing a dependency first would break what still stands on it.

    Raises:
        ContractError: An RPC declares no permission or no deadline.
        MasterKeyError: The master key cannot be used.
        SchemaTooNew: A later version wrote the database.
        Unavailable: The database cannot be opened.
    """
    policies = {name: module_methods(name) for name in names}
    methods = {path: method for each in policies.values() for path, method in each.items()}
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.configure(settings, "+".join(names)))
        master = MasterKey.load(settings.master_key)
        database = Database(settings.database)
        stack.push_async_callback(database.close)
        mesh = MeshSigner(master.derive("mesh"))
        clients = Clients(dict.fromkeys(MODULES, unix_target(settings.socket)), mesh)
        stack.push_async_callback(clients.close)
        trust = IdentityTrust(clients)
        server = Server(methods, TokenVerifier(trust), mesh)
        tasks = Tasks()
        checks: dict[str, list[Callable[[], Awaitable[None]]]] = {}
        drains: list[Callable[[float], Awaitable[None]]] = []
        for name in names:
            context = ModuleContext(
                name=name,
                settings=settings,
                server=server.grpc,
                database=database,
                clients=clients,
                master_key=master,
                tasks=tasks,
                checks=[trust.check],
                drains=drains,
            )
            await stack.enter_async_context(_build(name)(context))
            for path in policies[name]:
                checks[path.split("/")[1]] = context.checks
        # Modules close after the workers have ended, and these after the server has drained.
        stack.push_async_callback(tasks.stop)
        await server.start(settings.socket, checks)
        watching = tasks.keep_running("trust", trust.watch)
        stack.push_async_callback(_stop, server, drains, watching, settings.drain_seconds)
        tasks.keep_running("health", server.watch_health)
        yield server


async def _stop(
    server: Server,
    drains: Sequence[Callable[[float], Awaitable[None]]],
    watching: asyncio.Task[None],
    seconds: float,
) -> None:
    await server.drain(seconds)
    await asyncio.gather(*(drain(seconds) for drain in drains))
    # Work is done; what is left are short calls, and watches that their clients take up again.
    watching.cancel()
    await server.stop(min(seconds, _LAST_CALLS_SECONDS))


def _build(name: str) -> Build:
    build: Build = importlib.import_module(f"services.{name}.module").build
    return build
