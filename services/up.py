"""`plexus up`: a whole installation on one machine, from one command.

Embedded is Envoy and one process with every module. Mesh is Envoy and a process for each group of
modules, on PostgreSQL, as a cluster has them.
"""

from __future__ import annotations

# isort: off
# Before grpc: reading the settings also tells grpc how to start.
from services.runtime.settings import Settings
# isort: on

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial

from services import launch, schema
from services.app import MODULES, serve
from services.edge import Edge
from services.launch import AlreadyRunning, progress, say
from services.packaged import OWNER, PackagedPostgres
from services.runtime import log
from services.runtime.crypto import MasterKey, MasterKeyError
from services.runtime.db import DatabaseDamaged, check_file
from services.runtime.ids import new_id
from services.runtime.tasks import Tasks
from services.runtime.topology import Topology
from services.supervisor import Child

_STARTED = "started"
_WORKING = "agents"


def main(settings: Settings | None = None, shape: str = "embedded") -> int:
    """Serve until told to stop; returns the exit status."""
    return launch.explained(partial(_run, shape=shape), settings)


def _run(settings: Settings, *, shape: str) -> None:
    launch.prepare(settings)
    with _sole_owner(settings):
        log.configure(settings.log_level, settings.directory / "logs" / "plexus.log")
        if shape == "mesh":
            launch.run(_mesh, settings)
            return
        if not settings.database_url.get_secret_value():
            _check_files(settings)
        launch.run(_embedded, settings)


def _check_files(settings: Settings) -> None:
    """Refuse to take damage or loss for a new installation."""
    check_file(settings.database)
    held = settings.database.exists() and (settings.directory / _STARTED).exists()
    if held and not settings.database.stat().st_size:
        raise DatabaseDamaged(
            f"the database {settings.database} is empty though it held data: put a backup in "
            "its place, or move it away to start empty"
        )
    if settings.database.exists() and not settings.master_key.exists():
        raise MasterKeyError(
            f"{settings.master_key} is missing, and without it the secrets in the database "
            "cannot be opened: put its backup there"
        )


@contextmanager
def _sole_owner(settings: Settings) -> Iterator[None]:
    """Hold the data directory: two processes on one database would each take up all runs."""
    path = settings.directory / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(_already(file.read())) from None
        file.truncate(0)
        owner = {"pid": os.getpid(), "url": f"http://{settings.host}:{settings.port}"}
        file.write(json.dumps(owner))
        file.flush()
        yield


def _already(text: str) -> str:
    try:
        owner = json.loads(text)
        return (
            f"Plexus already runs at {owner['url']} (process {owner['pid']}).\n"
            f"Stop it with Ctrl-C where it runs, or with: kill {owner['pid']}"
        )
    except (ValueError, KeyError):
        return "Plexus is just starting in another terminal. Wait a moment and look there."


async def _embedded(settings: Settings, stop: asyncio.Event) -> None:
    began = time.perf_counter()
    edge = Edge(settings, Topology.embedded(settings, MODULES))
    async with AsyncExitStack() as outer:
        outer.push_async_callback(edge.stop)
        progress("modules", ", ".join(MODULES))
        async with serve(settings):
            await _serve_until(stop, edge, settings, began)
    say("Stopped. Everything that was acknowledged is kept.")


async def _mesh(settings: Settings, stop: asyncio.Event) -> None:
    began = time.perf_counter()
    topology = Topology.mesh(settings, MODULES)
    edge = Edge(settings, topology)
    async with AsyncExitStack() as outer:
        if not settings.database_url.get_secret_value():
            settings = await _packaged_database(settings, outer)
        MasterKey.load(settings.master_key, given=settings.master_key_file is not None)
        revisions: list[str] = []
        await schema.migrate(settings, revisions.append)
        progress("tables", ", ".join(revisions))
        tasks = Tasks()
        outer.push_async_callback(tasks.stop)
        # Runs end before what they stand on: first the group that takes them, then all others.
        working, others = _children(settings, topology)
        outer.push_async_callback(_stop, others, settings)
        outer.push_async_callback(edge.stop)
        outer.push_async_callback(_stop, working, settings)
        for child in (*others, *working):
            tasks.start(child.name, child.keep_up())
        progress("processes", ", ".join(child.name for child in (*others, *working)))
        await _serve_until(stop, edge, settings, began)
    say("Stopped. Everything that was acknowledged is kept.")


async def _packaged_database(settings: Settings, outer: AsyncExitStack) -> Settings:
    server = PackagedPostgres(settings.directory / "postgres")
    progress("database", f"PostgreSQL out of a package, in {server.folder}: no PLEXUS_DATABASE_URL")
    await server.start()
    outer.push_async_callback(server.stop)
    tasks = Tasks()
    tasks.keep_running("postgres", partial(_keep_database, server))
    outer.push_async_callback(tasks.stop)
    return settings.model_copy(
        update={
            "database_url": type(settings.database_url)(server.url()),
            "database_owner_url": type(settings.database_url)(server.url(OWNER)),
        }
    )


async def _keep_database(server: PackagedPostgres) -> None:
    await server.wait()
    await server.start()


def _children(settings: Settings, topology: Topology) -> tuple[list[Child], list[Child]]:
    """The processes in which work goes on after its caller left, and all others."""
    working: list[Child] = []
    others: list[Child] = []
    instance = settings.instance or _installation(settings)
    for group in topology.groups:
        for replica in group.replicas:
            name = f"{group.name}-{replica}"
            child = Child(
                name,
                ("-m", "services", "serve", "--group", group.name, "--replica", str(replica)),
                # None of them may change tables.
                settings.environment(
                    instance=f"{instance}/{name}",
                    database_owner_url="",
                    listen="",
                    health_listen="",
                ),
                group.addresses[replica],
                settings.tls_dir,
            )
            (working if _WORKING in group.modules else others).append(child)
    return working, others


def _installation(settings: Settings) -> str:
    """A name that another host's installation on the same database does not have."""
    file = settings.directory / "installation"
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.write_text(new_id("ins"))
        fresh.replace(file)
    return file.read_text()


async def _stop(children: list[Child], settings: Settings) -> None:
    await asyncio.gather(*(child.stop(settings.drain_seconds) for child in children))


async def _serve_until(stop: asyncio.Event, edge: Edge, settings: Settings, began: float) -> None:
    """Open the gateway, and return when the installation is to stop."""
    progress("gateway", f"Envoy on {settings.host}:{settings.port}")

    def opened() -> None:
        (settings.directory / _STARTED).touch()
        _welcome(settings, time.perf_counter() - began)

    await edge.open_until(stop, opened)
    say("\nStopping: letting calls finish…")


def _welcome(settings: Settings, seconds: float) -> None:
    url = f"http://{settings.host}:{settings.port}"
    say(f"""
Plexus is up at {url} after {seconds:.1f} s. Its data and logs are in {settings.data_dir}/.

See it answer from documents, with its sources, in another terminal of this folder:

  .venv/bin/plexus login --register --url {url}
  .venv/bin/plexus demo --url {url}

Or over REST:

  curl -s {url}/v1/users/register -d \\
    '{{"email": "you@example.com", "password": "change me soon", "display_name": "You"}}'
  TOKEN=$(curl -s {url}/v1/users/authenticate -d \\
    '{{"email": "you@example.com", "password": "change me soon"}}' | cut -d'"' -f4)
  curl -sN {url}/v1/agents/process -H "authorization: Bearer $TOKEN" -d \\
    '{{"input": "Hello! What can you do?"}}'

Press Ctrl-C to stop.""")
