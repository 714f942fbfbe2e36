"""One gRPC server: policies around every RPC, health, reflection, and an orderly stop."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from services.runtime import log, telemetry
from services.runtime.clients import MAX_MESSAGE_BYTES, READY_SERVICE
from services.runtime.contract import Method
from services.runtime.credentials import MeshSigner, TokenVerifier
from services.runtime.interceptors.adapter import PolicyInterceptor
from services.runtime.interceptors.limits import SharedLimits
from services.runtime.interceptors.policies import ContractPolicies
from services.runtime.interceptors.telemetry import Telemetry
from services.runtime.local import LocalServices, Registrar
from services.runtime.resilience import tls as mesh_tls
from services.runtime.resilience.shedding import Admission
from services.runtime.topology import Address, AddressTaken

_logger = log.get(__name__)
MAX_HEADER_BYTES = 64 * 1024
# A port that another process has shall not be shared with it.
_ALONE = ("grpc.so_reuseport", 0)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_CHECK_SECONDS = 2.0
_FIRST_CHECK_SECONDS = 0.01
# While something fails it is looked at more often: callers wait for the round that finds it mended.
_FAILING_CHECK_SECONDS = 0.25
_CHECK_DEADLINE = 5.0
_LONGEST_WAIT_SECONDS = 3600
# Longer than the gateway takes to notice: its health interval times its threshold.
NOTICE_SECONDS = 0.75
Check = Callable[[], Awaitable[None]]


class _ForContracts(grpc.aio.ServerInterceptor):
    """Keeps another interceptor away from gRPC's own services.

    The packaged one breaks a stream that writes to its context, as health's does: with tracing on,
    nobody would be seen to be well.
    """

    def __init__(self, inner: grpc.aio.ServerInterceptor) -> None:
        self._inner = inner

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc."""
        if str(details.method).startswith("/grpc."):
            return await continuation(details)
        handler: Any = await self._inner.intercept_service(cast(Any, continuation), details)
        return cast("grpc.RpcMethodHandler[Any, Any] | None", handler)


class _Door(health_pb2_grpc.HealthServicer):
    """A second way to a process's health, with one name more."""

    def __init__(self, inner: health_aio.HealthServicer) -> None:
        self._inner = inner

    async def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """See the protocol."""
        if request.service == "live":
            return health_pb2.HealthCheckResponse(status=_SERVING)
        return await self._inner.Check(request, context)


class Server:
    """Serves modules on one address."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        tokens: TokenVerifier,
        mesh: MeshSigner,
        admission: Admission | None = None,
        limits: SharedLimits | None = None,
        local: LocalServices | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            methods: Policies of every RPC it will serve.
            tokens: Verifies callers.
            mesh: Verifies other services of the mesh.
            admission: Refuses what is too much.
            limits: Counts what all replicas let pass together.
            local: Serves the same to modules of this process.
        """
        self.admission = admission or Admission()
        self.port = 0
        policies = ContractPolicies(methods, tokens, mesh, limits)
        ours = PolicyInterceptor(policies, Telemetry(), self.admission)
        interceptors = [
            ours,
            # Inside ours: it knows streams only as generators, and sees verified calls alone.
            *map(_ForContracts, telemetry.server_interceptors()),
        ]
        self.grpc = grpc.aio.server(
            interceptors=interceptors,
            options=(
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # What the gateway takes is taken here, and what it adds.
                ("grpc.max_metadata_size", MAX_HEADER_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
                # The gateway and the modules' channels ping every 1.5 seconds, to find out what is
                # half open; without this grpc answers that with a GOAWAY.
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
                ("grpc.keepalive_permit_without_calls", 1),
                _ALONE,
                # A burst of callers waits its turn; how many there are is bounded at the gateway.
                ("grpc.server.max_pending_requests", 10_000),
                ("grpc.server.max_pending_requests_hard_limit", 20_000),
                # grpc takes in one call in each turn of the loop, and cancels without a word what
                # waited for half a minute: under load that fell on calls that had time left.
                ("grpc.server_max_unrequested_time_in_server", _LONGEST_WAIT_SECONDS),
            ),
        )
        self._local = local or LocalServices(MAX_MESSAGE_BYTES)
        # Where modules register their servicers; it takes what grpc's server takes.
        self.registrar: Any = Registrar(self.grpc, self._local, ours.around)
        self._health = health_aio.HealthServicer()
        self._checks: dict[str, Sequence[Check]] = {}
        self._passing: dict[str, bool] = {}
        self._draining = False
        self._place: int | None = None
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        services = {name.split("/")[1] for name in methods}
        reflection.enable_server_reflection(
            [*sorted(services), "grpc.health.v1.Health", reflection.SERVICE_NAME], self.grpc
        )

    async def start(
        self, address: Address, checks: Mapping[str, Sequence[Check]], tls: Path | None = None
    ) -> None:
        """Listen.

        Args:
            address: Where; what a dead process left of a Unix socket is replaced.
            checks: What must hold for each gRPC service, by its full name, to be SERVING.
            tls: The folder of certificates, for an address on a network.

        Raises:
            AddressTaken: Another process serves there.
            TlsError: The folder lacks a file.
        """
        if address.path is not None:
            self._place = await asyncio.to_thread(_take, address.path)
        credentials = None
        if address.path is None and tls is not None:
            credentials = mesh_tls.server_credentials(mesh_tls.Certificates(tls))
        self.port = _listen(self.grpc, address, credentials)
        self._checks = dict(checks)
        for service in ("", *checks):  # until the first check says otherwise
            await self._set(service, good=False)
        await self._health.set(READY_SERVICE, _SERVING)
        await self.grpc.start()
        self._local.opened.set()
        self.admission.lag.start()

    async def watch_health(self) -> None:
        """Keep the health of every service true, until cancelled."""
        pause = _FIRST_CHECK_SECONDS
        while True:
            if await self.check_health():
                pause = _FIRST_CHECK_SECONDS
                await asyncio.sleep(_CHECK_SECONDS)
            else:
                # Whoever starts or mends something should not wait for the next round.
                pause = min(pause * 2, _FAILING_CHECK_SECONDS)
                await asyncio.sleep(pause)

    async def check_health(self) -> bool:
        """Run every check once and publish the outcome; returns whether all hold."""
        good = True
        for service, checks in self._checks.items():
            passed = await self._passes(service, checks)
            good = good and passed
            await self._set(service, passed)
        await self._set("", good)
        return good

    async def _passes(self, service: str, checks: Sequence[Check]) -> bool:
        try:
            async with asyncio.timeout(_CHECK_DEADLINE):
                for check in checks:
                    await check()
        except Exception as error:  # noqa: BLE001 - whatever it is, the service does not serve
            if self._passing.get(service):
                _logger.warning("health_check_failed", service=service, error=repr(error))
            return False
        return True

    async def tell(self, name: str, good: bool) -> None:
        """Set whether a name of the health protocol that is no service's is SERVING."""
        if not self._draining:
            await self._health.set(name, _SERVING if good else _NOT_SERVING)

    @asynccontextmanager
    async def health_door(self, address: Address) -> AsyncIterator[None]:
        """Answer for the health of this process elsewhere too, without TLS, and for nothing else.

        Orchestrators' probes have no certificates. The name `live` is SERVING for as long as this
        process speaks, also while it drains: whoever kills what does not live goes by that.
        """
        door = grpc.aio.server(options=(_ALONE,))
        health_pb2_grpc.add_HealthServicer_to_server(_Door(self._health), door)
        _listen(door, address)
        await door.start()
        try:
            yield
        finally:
            await door.stop(None)

    async def _set(self, service: str, good: bool) -> None:
        self._passing[service] = good
        if not self._draining:
            await self._health.set(service, _SERVING if good else _NOT_SERVING)

    async def drain(self, seconds: float) -> None:
        """Tell everybody who looks at our health to go elsewhere, and wait until they looked.

        Args:
            seconds: How long a stop may take at all.
        """
        self._draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(min(NOTICE_SECONDS, seconds))

    async def stop(self, grace: float) -> None:
        """Let calls under way finish for `grace` seconds, then cut them."""
        self.admission.lag.stop()
        await self.grpc.stop(grace)
        await self._local.close()
        if self._place is not None:
            os.close(self._place)
            self._place = None


def _listen(
    server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None = None
) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address.text)
        return server.add_secure_port(address.text, credentials)
    except RuntimeError as error:
        raise AddressTaken(f"{address.text} cannot be listened on: is it in use?") from error


def _take(socket: Path) -> int:
    """Make a socket's place ours until the descriptor is closed; what the dead left is removed.

    gRPC would bind over the socket of a process that serves, which would hear nothing any more.
    """
    held = os.open(socket.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        socket.unlink(missing_ok=True)
    except BlockingIOError as error:
        os.close(held)
        raise AddressTaken(f"another process serves at {socket}: stop it first") from error
    return held
