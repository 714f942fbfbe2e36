"""A whole mesh as a user runs it: one command, its own data directory and port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Mesh:
    """Starts, kills and stops `plexus up`."""

    running: ClassVar[set[Mesh]] = set()

    def __init__(self, data_dir: Path, shape: str = "embedded", **settings: str) -> None:
        self.data_dir = data_dir
        self._shape = shape
        self.port = free_port()
        # Nothing of the caller's settings may reach the mesh under test.
        inherited = {key: value for key, value in os.environ.items() if "PLEXUS" not in key}
        self._environment = {
            **inherited,
            "PLEXUS_DATA_DIR": str(data_dir),
            "PLEXUS_PORT": str(self.port),
            "PLEXUS_ARGON2_MEMORY_KIB": "1024",
            "PLEXUS_ARGON2_PASSES": "1",
            # Many users come from one address here, and ask faster than people do.
            **{f"PLEXUS_RATE_{name}": "0" for name in ("READ", "WRITE", "GENERATE", "LOGIN")},
            **{f"PLEXUS_{key.upper()}": value for key, value in settings.items()},
        }
        self._process: asyncio.subprocess.Process | None = None
        self._printed: list[str] = []

    def use_port(self, port: int) -> None:
        """Listen on this port instead of a free one."""
        self.port = port
        self._environment["PLEXUS_PORT"] = str(port)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The Python process."""
        assert self._process is not None
        return self._process.pid

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start it and wait for nothing."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "services", "up", "--shape", self._shape),
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def start(self) -> float:
        """Start it; returns the seconds until it said that it is ready."""
        began = time.monotonic()
        self._process = await self.spawn()
        self.running.add(self)
        self._printed = []
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while not self._printed or "Press Ctrl-C" not in self._printed[-1]:
                line = await self._process.stdout.readline()
                if not line:
                    raise AssertionError(f"the mesh did not start:\n{await self.output()}")
                self._printed.append(line.decode())
        return time.monotonic() - began

    async def output(self) -> str:
        """What it printed, once it has ended."""
        await self.kill()
        assert self._process is not None
        assert self._process.stdout is not None
        self._printed.append((await self._process.stdout.read()).decode())
        return "".join(self._printed)

    async def kill(self) -> None:
        """End it without notice; Envoy goes with it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self.running.discard(self)

    async def stop(self) -> int:
        """Ctrl-C; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            status = await self._process.wait()
        self.running.discard(self)
        return status
