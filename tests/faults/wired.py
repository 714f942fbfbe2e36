"""A mesh whose every connection goes through a proxy: each process has its own view of the others.

The processes are started one by one, as an orchestrator does. The gateway and the agents are told
ports behind which proxies stand; so are all of PostgreSQL and Redis, and callers of the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from gateway.filters import HEALTH_PATH
from gateway.probe import ask
from services.packaged import OWNER, PackagedPostgres
from services.runtime.crypto import MasterKey
from services.runtime.topology import Address
from tests.e2e.mesh import ROOT, free_port
from tests.faults.proxy import FaultProxy
from tests.redis_server import RedisServer

_LEASH = ROOT / "gateway" / "leash.py"
# Every module is in one: what a gateway or a caller finds at an address must be what it looks for.
AGENTS = "agents+interop"
CALLED = ("identity+monitor", "llm", "history+memory+ingest+context")
GROUPS = (*CALLED, AGENTS)
_UP_SECONDS = 60.0
_numbers = itertools.count()


def _host(port: int) -> Address:
    return Address(host="127.0.0.1", port=port)


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on now."""
    for _ in range(100):
        first = random.randrange(20_000, 30_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as found:
                    found.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


class Wired:
    """A mesh on TCP with proxies in it.

    Attributes:
        client: Between callers and the gateway.
        gateway: Between the gateway and each group of modules.
        agents: Between the agents and each group of modules.
        database: Between every module and PostgreSQL.
        redis: Between every module and Redis.
    """

    def __init__(
        self,
        folder: Path,
        server: PackagedPostgres,
        *defects: str,
        chance: random.Random,
        **more: str,
    ) -> None:
        self.folder = folder
        self._defects = defects
        self._listen = _free_ports(3 * len(GROUPS))
        self.port = free_port()
        self._postgres = server
        self._database = f"wired{next(_numbers)}"
        socket_file = server.folder / ".s.PGSQL.5432"
        # A Unix socket's path has a bound that a test's folder may pass.
        self._redis = RedisServer(Path(tempfile.mkdtemp(prefix="plexus-wired-")))

        def before(first: int) -> dict[str, FaultProxy]:
            return {
                group: FaultProxy(_host(self._listen + n), _host(first + n), chance)
                for n, group in enumerate(GROUPS)
            }

        self.client = FaultProxy(_host(self.port), chance=chance)
        self.gateway = before(self._listen + len(GROUPS))
        self.agents = before(self._listen + 2 * len(GROUPS))
        self.database = FaultProxy(Address(path=socket_file), chance=chance)
        self.redis = FaultProxy(Address(path=self._redis.socket), chance=chance)
        self._more = more
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def proxies(self) -> tuple[FaultProxy, ...]:
        """All of them."""
        between = (*self.gateway.values(), *self.agents.values())
        return (self.client, *between, self.database, self.redis)

    @property
    def url(self) -> str:
        """Where callers reach the gateway, past the proxy."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def far_url(self) -> str:
        """Where callers reach it through the proxy."""
        return f"http://{self.client.address.text}"

    def _environment(self, first: int, **more: str) -> dict[str, str]:
        database, redis = self.database.address.text, self.redis.address.text
        values = {
            "data_dir": str(self.folder / "data"),
            "port": str(self.port),
            "address": "127.0.0.1:{port}",
            "mesh_port": str(first),
            "groups": ",".join(GROUPS),
            "database_url": f"postgresql://plexus@{database}/{self._database}",
            "redis_url": f"redis://{redis}/0",
            "argon2_memory_kib": "1024",
            "argon2_passes": "1",
            **{f"rate_{name}": "0" for name in ("read", "write", "generate", "login")},
            **self._more,
            **more,
        }
        inherited = {key: value for key, value in os.environ.items() if "PLEXUS" not in key}
        return {**inherited, **{f"PLEXUS_{key.upper()}": each for key, each in values.items()}}

    async def _run(self, environment: dict[str, str], *arguments: str) -> None:
        part = ("-m", "tests.faults.planted", *self._defects, "--", *arguments)
        leash = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()))
        with (self.folder / "printed.txt").open("ab") as printed:
            process = await asyncio.create_subprocess_exec(
                *(*leash, sys.executable, *part),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
            )
        self._processes.append(process)

    async def start(self) -> None:
        """Start everything; returns when a caller is answered."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        MasterKey.load(self.folder / "data" / "master.key")
        await asyncio.gather(
            self._postgres.make_database(self._database), asyncio.to_thread(self._redis.start)
        )
        for proxy in self.proxies:
            await proxy.accept()
        owner = self._postgres.url(OWNER, self._database)
        await self._run(self._environment(self._listen, database_owner_url=owner), "migrate")
        assert await self._processes.pop().wait() == 0, self.printed
        count = len(GROUPS)
        for number, group in enumerate(GROUPS):
            first = self._listen + (2 * count if group == AGENTS else 0)
            own = {"listen": f"127.0.0.1:{self._listen + number}", "instance": f"{group}-0"}
            name = group.replace("+", "-")
            await self._run(self._environment(first, **own), "serve", "--group", name)
        await self._run(self._environment(self._listen + count), "gateway")
        await self._answers()

    async def _answers(self) -> None:
        """Wait until the gateway finds every module well."""
        until = time.monotonic() + _UP_SECONDS
        while time.monotonic() < until:
            assert all(each.returncode is None for each in self._processes), self.printed
            with suppress(OSError):
                status, _ = await ask("GET", HEALTH_PATH, host="127.0.0.1", port=self.port)
                if status == HTTPStatus.OK:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(self.printed)

    @property
    def printed(self) -> str:
        """What its processes said."""
        return (self.folder / "printed.txt").read_text()

    async def stop(self) -> None:
        """End it without ceremony."""
        for each in reversed(self._processes):
            if each.returncode is None:
                each.send_signal(signal.SIGKILL)
        await asyncio.gather(*(each.wait() for each in self._processes))
        for proxy in self.proxies:
            await proxy.__aexit__(None, None, None)
        self._redis.kill()
        shutil.rmtree(self._redis.socket.parent, ignore_errors=True)


@asynccontextmanager
async def wired(
    folder: Path, server: PackagedPostgres, *defects: str, chance: random.Random, **more: str
) -> AsyncIterator[Wired]:
    """Such a mesh, with a database of its own at a server, while the block runs."""
    mesh = Wired(folder, server, *defects, chance=chance, **more)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(mesh.stop)
        await mesh.start()
        yield mesh
