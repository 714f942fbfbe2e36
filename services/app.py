"""The composition root: which modules there are, and how one process serves some of them."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from services.runtime import telemetry
from services.runtime.clients import MAX_MESSAGE_BYTES, Clients
from services.runtime.contract import module_methods
from services.runtime.credentials import MeshSigner, TokenVerifier
from services.runtime.crypto import MasterKey
from services.runtime.db import open_database
from services.runtime.interceptors.limits import SharedLimits
from services.runtime.local import LocalServices
from services.runtime.module import Build, ModuleContext
from services.runtime.resilience.shedding import Admission
from services.runtime.server import Server
from services.runtime.settings import Settings
from services.runtime.shared import keep_telling, open_shared
from services.runtime.strict_json import StrictJson
from services.runtime.tasks import Tasks
from services.runtime.topology import Address, Topology, target
from services.trust import IdentityTrust

_LAST_CALLS_SECONDS = 2.0
_TRUST_DELAY = 1.0
MODULES = (
    "identity",
    "llm",
    "history",
    "memory",
    "ingest",
    "context",
    "agents",
    "interop",
    "monitor",
)


@asynccontextmanager
async def serve(
    settings: Settings,
    names: Sequence[str] = MODULES,
    *,
    topology: Topology | None = None,
    replica: int = 0,
) -> AsyncIterator[Server]:
    """Serve modules at their address while the block runs, then stop in order.

    The order of a stop: tell the gateway, let calls finish, then workers, then modules, then
    channels and the database. Closing a dependency first would break what still stands on it.

    Raises:
        ContractError: An RPC declares no permission or no deadline.
        MasterKeyError: The master key cannot be used.
        SchemaTooNew: A later version wrote the database.
        DatabaseUnfit: Its role may do what it must not.
        SharedUrlError: The address of Redis is none.
        TlsError: A certificate cannot be read.
        Unavailable: The database cannot be opened.
    """
    topology = topology or Topology.embedded(settings, MODULES)
    own = topology.own(names[0], replica)
    # An SQLite file has one process at a time.
    alone = not settings.database_url.get_secret_value()
    policies = {name: module_methods(name) for name in names}
    methods = {path: method for each in policies.values() for path, method in each.items()}
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.configure(settings, "+".join(names)))
        master = MasterKey.load(settings.master_key, given=settings.master_key_file is not None)
        database = open_database(settings)
        stack.push_async_callback(database.close)
        await database.require_fit()
        mesh = MeshSigner(*master.derive_each("mesh"))
        # Its own modules a process reaches at its own address: also while it drains, when others
        # are told to go elsewhere.
        targets = {
            name: target([own]) if name in names else topology.target(name) for name in MODULES
        }
        local = LocalServices(MAX_MESSAGE_BYTES)
        clients = Clients(targets, mesh, settings.tls_dir, local=local, neighbours=names)
        stack.push_async_callback(clients.close)
        shared = await stack.enter_async_context(
            open_shared(settings.redis_url.get_secret_value(), alone=alone)
        )
        trust = IdentityTrust(clients)
        admission = Admission(settings.max_calls, settings.max_streams)
        redis = bool(settings.redis_url.get_secret_value())
        limits = SharedLimits(shared.limiter, settings) if redis else None
        server = Server(methods, TokenVerifier(trust), mesh, admission, limits, local)
        StrictJson().register(server.grpc)
        tasks = Tasks()
        checks: dict[str, list[Callable[[], Awaitable[None]]]] = {}
        drains: list[Callable[[float], Awaitable[None]]] = []
        for name in names:
            context = ModuleContext(
                name=name,
                settings=settings,
                server=server.registrar,
                database=database.of(name),
                clients=clients,
                master_key=master,
                shared=shared,
                tasks=tasks,
                checks=[trust.check],
                drains=drains,
            )
            await stack.enter_async_context(_build(name)(context))
            for path in policies[name]:
                checks[path.split("/")[1]] = context.checks
        # Modules close after the workers have ended, and these after the server has drained.
        stack.push_async_callback(tasks.stop)
        listen = Address.parse(settings.listen) if settings.listen else own
        await server.start(listen, checks, settings.tls_dir)
        if settings.health_listen:
            await stack.enter_async_context(
                server.health_door(Address.parse(settings.health_listen))
            )
        tasks.keep_running("shared.health", lambda: keep_telling(shared, server.tell))
        # Nobody is let in while it is not known which credentials are revoked.
        watching = tasks.keep_running("trust", trust.watch, longest=_TRUST_DELAY)
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
