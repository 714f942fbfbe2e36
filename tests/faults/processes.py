"""The processes of an installation under test: found, ended, stalled, and awaited again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from services.packaged import PackagedPostgres
from tests.faults.world import FaultyMesh

DATABASE, GATEWAY = "database", "gateway"
_SUPERUSER = "postgres"
_POLL_SECONDS = 0.01
_ENDING_SECONDS = 0.5
_START_SECONDS = 60.0
# Less than it takes until a process that is silent is killed.
_STALL_SECONDS = 9.0
_LEASES = "SELECT count(*) FROM agents.agents_owners WHERE instance LIKE $1"


class Installation(FaultyMesh):
    """A mesh of processes on the packaged PostgreSQL, whose processes can be told apart."""

    # A session of many installations would otherwise leave a database of each behind.
    databases: ClassVar[set[Path]] = set()

    def __init__(self, data_dir: Path, *defects: str, **settings: str) -> None:
        super().__init__(data_dir, *defects, **{"shape": "mesh", **settings})
        self._database = PackagedPostgres(self.settings.directory / "postgres")

    @property
    def database_url(self) -> str:
        """The database as one who sees every row."""
        return self._database.url(_SUPERUSER)

    def modules(self) -> dict[str, int]:
        """The processes of modules that run now, such as `agents-0`, and their ids."""
        found = {}
        for pid in children(self.pid):
            words = _command(pid)
            if "--group" in words:
                place = words.index("--group")
                group, replica = words[place + 1], words[place + 3]
                found[f"{group}-{replica}"] = pid
        return found

    def one(self, what: str) -> int | None:
        """The process of the database or the gateway, if it runs."""
        program = "postgres" if what == DATABASE else "envoy"
        for pid in children(self.pid):
            words = _command(pid)
            if words and Path(words[0]).name == program:
                return pid
        return None

    async def another(self, name: str, old: int) -> int:
        """Wait until another process has a module's name; returns its id."""
        async with asyncio.timeout(_START_SECONDS):
            while True:
                pid = self.modules().get(name)
                if pid is not None and pid != old:
                    return pid
                await asyncio.sleep(_POLL_SECONDS)

    async def serving(self, name: str) -> None:
        """Wait until everything that a process serves is well."""
        socket = self.settings.run_dir / f"{name}.sock"
        request = health_pb2.HealthCheckRequest()
        async with asyncio.timeout(_START_SECONDS):
            while True:
                # A channel each time: one that failed would wait before it tries again.
                async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                    stub: Any = HealthStub(channel)
                    try:
                        said = await stub.Check(request, timeout=1)
                    except grpc.aio.AioRpcError:
                        pass
                    else:
                        if said.status == health_pb2.HealthCheckResponse.SERVING:
                            return
                await asyncio.sleep(0.05)

    async def stall(self, name: str) -> bool:
        """Let a process do nothing until it is taken for dead, then go on; whether it was."""
        pid = self.modules()[name]
        connection = await asyncpg.connect(self.database_url)
        try:
            os.kill(pid, signal.SIGSTOP)
            async with asyncio.timeout(_STALL_SECONDS):
                while await connection.fetchval(_LEASES, f"%/{name}"):
                    await asyncio.sleep(_POLL_SECONDS)
                # Its runs are others' by now; these end them.
                await asyncio.sleep(_ENDING_SECONDS)
        except TimeoutError:
            return False
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            await connection.close()
        return True

    def everything(self) -> list[int]:
        """Every process of it, the first one included."""
        return [self.pid, *descendants(self.pid)]

    def remove(self) -> None:
        """Delete the database's files, which are elsewhere where root runs the tests."""
        shutil.rmtree(self._database.folder, ignore_errors=True)


@asynccontextmanager
async def installed(folder: Path, *defects: str, **settings: str) -> AsyncIterator[Installation]:
    """A running installation, of which nothing is left afterwards."""
    found = Installation(folder, *defects, **settings)
    await found.start()
    try:
        yield found
    finally:
        left = found.everything()
        await found.kill()
        await gone(left)
        found.remove()


async def gone(pids: list[int]) -> None:
    """Wait until processes have ended."""
    async with asyncio.timeout(10):
        while any(_command(pid) for pid in pids):
            await asyncio.sleep(_POLL_SECONDS)


def kill(pid: int) -> None:
    """End a process without notice, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def waited(pid: int) -> float:
    """Seconds that a process was ready to go on and had no processor.

    What others do on this machine is no part of how fast something recovers.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def longest_wait(pids: Iterable[int], before: Mapping[int, float] | None = None) -> float:
    """The longest of such waits, for each since its first reading."""
    known = before or {}
    return max((waited(pid) - known.get(pid, 0.0) for pid in pids), default=0.0)


def children(pid: int) -> list[int]:
    """The processes that a process started and that have not ended."""
    return sorted(child for child, parent in _parents().items() if parent == pid)


def descendants(pid: int) -> list[int]:
    """Its children, and theirs."""
    parents, found = _parents(), [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _parents() -> dict[int, int]:
    """Every process that has not ended, and who started it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # The name in brackets may hold anything.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def _command(pid: int) -> list[str]:
    """A process's words; empty for one that ended."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return []
    return text.rstrip("\0").split("\0") if text else []
