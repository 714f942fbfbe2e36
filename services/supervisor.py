"""The processes of a mesh on one machine: started, started again when they end, stopped in order.

A process that ends is started again after a pause with full jitter, which doubles up to a cap
while it keeps ending soon. One that is there and does not answer is killed, and is then one that
ended. Where there is a cluster, its orchestrator does all this.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from services.runtime import log
from services.runtime.clients import READY_SERVICE
from services.runtime.resilience import tls
from services.runtime.topology import Address, target

_logger = log.get(__name__)
_LEASH = Path(__file__).resolve().parents[1] / "gateway" / "leash.py"
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_STEADY_SECONDS = 5.0
_PROBE_SECONDS = 1.0
_PROBE_DEADLINE = 3.0
_MISSED_PROBES = 3
_STARTING_SECONDS = 60.0
# Beyond its drain: the notice that it gives, last calls, closing what it stands on.
_KILL_SECONDS = 10.0


class Child:
    """One process of the mesh, kept up until it is told to stop."""

    def __init__(
        self,
        name: str,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        address: Address,
        tls_dir: Path | None,
    ) -> None:
        """Prepare it.

        Args:
            name: What people call it, such as `agents-0`.
            arguments: Of this Python.
            environment: Its settings.
            address: Where it listens.
            tls_dir: The certificates by which it is asked whether it answers.
        """
        self.name = name
        self._arguments = arguments
        self._environment = environment
        self._address = address
        self._tls_dir = tls_dir
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._starting = asyncio.Lock()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def keep_up(self) -> None:
        """Run it, again and again, until `stop`."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while not self._stopping:
            began = loop.time()
            try:
                status = str(await self._run_once())
            except OSError as error:  # no memory or no process to be had, for now
                status = str(error)
            if self._stopping:
                return
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            wait = random.uniform(0, pause)  # noqa: S311
            self.restarts += 1
            _logger.error("process_ended", name=self.name, status=status, again_in=round(wait, 2))
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _run_once(self) -> int:
        async with self._starting:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())),
                *(sys.executable, *self._arguments),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                # A Ctrl-C is for the supervisor, which stops its processes in order.
                start_new_session=True,
            )
        probing = asyncio.create_task(self._kill_when_silent(process), name=f"probe {self.name}")
        try:
            return await process.wait()
        finally:
            probing.cancel()

    async def _kill_when_silent(self, process: asyncio.subprocess.Process) -> None:
        """A process that hangs keeps its sockets: only its silence tells."""
        loop = asyncio.get_running_loop()
        began, answered, missed = loop.time(), False, 0
        while missed < _MISSED_PROBES:
            await asyncio.sleep(_PROBE_SECONDS)
            try:
                good = await self._answers()
            except tls.TlsError as error:  # half of a renewal, maybe
                _logger.warning("process_not_probed", name=self.name, error=str(error))
                continue
            if good:
                answered, missed = True, 0
            elif answered or loop.time() - began > _STARTING_SECONDS:
                missed += 1
        _logger.error("process_silent", name=self.name, pid=process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    def _channel(self) -> grpc.aio.Channel:
        where = target([self._address])
        if self._tls_dir is None or self._address.path is not None:
            return grpc.aio.insecure_channel(where)
        credentials = tls.channel_credentials(tls.Certificates(self._tls_dir))
        return grpc.aio.secure_channel(where, credentials, options=tls.CHANNEL_OPTIONS)

    async def _answers(self) -> bool:
        """Whether it speaks, also while it drains or its database is away."""
        request = health_pb2.HealthCheckRequest(service=READY_SERVICE)
        async with self._channel() as channel:
            try:
                stub: Any = HealthStub(channel)
                await stub.Check(request, timeout=_PROBE_DEADLINE)
            except grpc.aio.AioRpcError as error:
                return error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )
        return True

    async def stop(self, patience: float) -> None:
        """Ask it to end, which it does when its work is done; after `patience` seconds kill it."""
        self._stopping = True
        async with self._starting:  # what is being started is there to be stopped
            process = self._process
        if process is None or self.pid is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience + _KILL_SECONDS):
                await process.wait()
        except TimeoutError:
            _logger.error("process_killed", name=self.name)
            process.kill()
            await process.wait()
