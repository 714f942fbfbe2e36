"""Channels to other modules: the caller's identity, request and deadline go along.

A stub made on such a channel is called like any other. What the other module answers with arrives
as grpc's own error, and so does what is refused before it is sent, because the module does not
answer or too much is under way; `status.remote_errors` raises it as the PlexusError that it was.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
from opentelemetry import metrics

from services.runtime import telemetry
from services.runtime.context import CallContext, mesh_principal
from services.runtime.contract import module_methods
from services.runtime.credentials import MeshSigner
from services.runtime.interceptors.policies import ASSERTION_KEY
from services.runtime.local import LocalChannel, LocalServices
from services.runtime.resilience import tls as mesh_tls
from services.runtime.resilience.callee import Bounds, Callee
from services.runtime.resilience.channel import GuardedChannel

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Every server of ours is SERVING by this name from its start until it drains, whatever its modules
# say of themselves: a module whose database is away still answers best itself, and identity's
# health, which waits for identity's news, must not keep that news out.
READY_SERVICE = "plexus.mesh"
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that comes back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# A connection over a network may be half open: who does not answer a ping is gone.
_NETWORK_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 1_500),
    ("grpc.keepalive_timeout_ms", 2_500),
    # No ping is sent while another is out, and that one has its own time-out: a minute.
    ("grpc.http2.ping_timeout_ms", 2_500),
    ("grpc.http2.max_pings_without_data", 0),
    # Also where nothing is under way: the next call would have to wait for all of that, after what
    # it may have waited for another module already.
    ("grpc.keepalive_permit_without_calls", 1),
    # A name gets new addresses while replicas come and go.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)
_LOOK_SECONDS = 30.0
_LAST_CALLS_SECONDS = 600.0


class Clients:
    """One channel to each module, made when first asked for."""

    def __init__(
        self,
        targets: Mapping[str, str],
        mesh: MeshSigner,
        tls: Path | None = None,
        bounds: Bounds | None = None,
        *,
        local: LocalServices | None = None,
        neighbours: Collection[str] = (),
    ) -> None:
        """Prepare channels.

        Args:
            targets: gRPC targets by module name, such as `unix:/run/plexus.sock`.
            mesh: Signs for the caller on whose behalf a call is made.
            tls: The folder of certificates; what goes over a network then goes by TLS.
            bounds: How much may be under way to one module.
            local: What this process serves.
            neighbours: The modules that are in this process, and are called without a socket.

        Raises:
            TlsError: The folder lacks a file.
        """
        self._targets = targets
        self._mesh = mesh
        self._bounds = bounds or Bounds()
        self._local = local
        self._neighbours = neighbours
        self._channels: dict[str, GuardedChannel] = {}
        self._certificates = None if tls is None else mesh_tls.Certificates(tls)
        self._look = time.monotonic() + _LOOK_SECONDS
        self._ending: set[asyncio.Task[None]] = set()
        _measure(self)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that can be called."""
        return tuple(self._targets)

    @property
    def callees(self) -> tuple[Callee, ...]:
        """What is known of the modules that were asked for: breakers, bulkheads, retries."""
        return tuple(each.callee for each in self._channels.values())

    def channel(self, module: str) -> grpc.aio.Channel:
        """The channel to a module."""
        if module not in self._channels:
            self._channels[module] = GuardedChannel(
                lambda: self._to(module),
                Callee(module, self._bounds),
                module_methods(module),
                self._sign,
            )
        return self._channels[module]

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()
        for task in tuple(self._ending):
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _to(self, module: str) -> grpc.aio.Channel:
        channel = self._connect(self._targets[module])
        # Spans are made by grpc's interceptors, which see what goes by a socket.
        if self._local is None or module not in self._neighbours or telemetry.enabled():
            return channel
        return LocalChannel(self._local, channel)

    def _connect(self, target: str) -> grpc.aio.Channel:
        local = target.startswith("unix:")
        options = (
            *CHANNEL_OPTIONS,
            *(() if local else _NETWORK_OPTIONS),
            ("grpc.service_config", service_config(target)),
        )
        interceptors = telemetry.client_interceptors()
        if local or self._certificates is None:
            return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
        return grpc.aio.secure_channel(
            target,
            mesh_tls.channel_credentials(self._certificates),
            options=(*options, *mesh_tls.CHANNEL_OPTIONS),
            interceptors=interceptors,
        )

    def _sign(self, metadata: Any, call: CallContext | None) -> tuple[tuple[str, str | bytes], ...]:
        """What a call says of itself, and what the mesh needs to know about it."""
        if self._certificates is not None and time.monotonic() > self._look:
            self._renew(self._certificates)
        principal = (call.principal if call else None) or mesh_principal()
        added: list[tuple[str, str | bytes]] = [(ASSERTION_KEY, self._mesh.sign(principal))]
        if call is not None:
            added.append(("x-request-id", call.request_id))
            if not telemetry.enabled():  # its own interceptor tells the peer, with the span
                span = f"{random.getrandbits(64):016x}"
                added.append(("traceparent", f"00-{call.trace_id}-{span}-01"))
        return (*metadata, *added) if metadata else tuple(added)

    def _renew(self, certificates: mesh_tls.Certificates) -> None:
        """Where our certificate was renewed, make calls on new connections from now on."""
        self._look = time.monotonic() + _LOOK_SECONDS
        if not certificates.renewed():
            return
        for channel in self._channels.values():
            old = channel.reconnect()
            task = asyncio.get_running_loop().create_task(old.close(_LAST_CALLS_SECONDS))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def service_config(target: str) -> str:
    """GRPC's service config: calls go to all of several addresses in turn, unless one drains.

    Retries are not its: grpc's jitter keeps callers together that failed together, and its
    throttle bounds them by failures rather than by calls.
    """
    if not _several(target):
        return "{}"
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "healthCheckConfig": {"serviceName": READY_SERVICE},
        }
    )


def _several(target: str) -> bool:
    """Whether a target is, or may be resolved to, more than one address."""
    if "," in target:
        return True
    scheme, _, rest = target.partition(":///")
    if scheme != "dns":
        return False
    try:
        ip_address(rest.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False


def _measure(clients: Clients) -> None:
    """Show the state of each breaker, what is under way, and what was refused or repeated."""
    meter = metrics.get_meter("plexus")

    def observed(value: Any) -> Any:
        def observe(_: object) -> Iterable[metrics.Observation]:
            return [
                metrics.Observation(value(each), {"module": each.name}) for each in clients.callees
            ]

        return [observe]

    meter.create_observable_gauge(
        "rpc.client.breaker",
        observed(lambda each: int(each.breaker.state)),
        description="0 closed, 1 half open, 2 open.",
    )
    meter.create_observable_gauge(
        "rpc.client.calls",
        observed(lambda each: each.calls.used + each.streams.used),
        description="Outgoing calls under way.",
    )
    for name, value, what in (
        ("rpc.client.breaker.opened", lambda each: each.breaker.opened, "How often it opened."),
        ("rpc.client.retries", lambda each: each.retried, "Calls made again."),
        ("rpc.client.refused", lambda each: each.refused, "Calls refused before they were sent."),
    ):
        meter.create_observable_counter(name, observed(value), description=what)
