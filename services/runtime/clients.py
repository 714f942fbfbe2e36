"""Channels to other modules: the caller's identity, request and deadline go along.

A stub made on such a channel is called like any other. What the other module answers with arrives
as grpc's own error; `status.remote_errors` raises it as the PlexusError that it was.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from services.runtime import telemetry
from services.runtime.context import current_or_none, mesh_principal
from services.runtime.contract import Method, module_methods
from services.runtime.credentials import MeshSigner
from services.runtime.interceptors.policies import ASSERTION_KEY

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that comes back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Clients:
    """One channel to each module, made when first asked for."""

    def __init__(self, targets: Mapping[str, str], mesh: MeshSigner) -> None:
        """Prepare channels.

        Args:
            targets: gRPC targets by module name, such as `unix:/run/plexus.sock`.
            mesh: Signs for the caller on whose behalf a call is made.
        """
        self._targets = targets
        self._mesh = mesh
        self._channels: dict[str, grpc.aio.Channel] = {}

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that can be called."""
        return tuple(self._targets)

    def channel(self, module: str) -> grpc.aio.Channel:
        """The channel to a module."""
        if module not in self._channels:
            methods = module_methods(module)
            self._channels[module] = grpc.aio.insecure_channel(
                self._targets[module],
                options=(*CHANNEL_OPTIONS, ("grpc.service_config", service_config(methods))),
                interceptors=[
                    _Unary(methods, self._mesh),
                    _Stream(methods, self._mesh),
                    *telemetry.client_interceptors(),
                ],
            )
        return self._channels[module]

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()


def service_config(methods: Mapping[str, Method]) -> str:
    """GRPC's service config: what may be repeated is retried while a peer is unavailable."""
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [
        dict(zip(("service", "method"), method.name[1:].split("/"), strict=True))
        for method in methods.values()
        if method.retryable
    ]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]} if names else {})


class _Outgoing:
    """Adds to a call what the mesh needs to know about it."""

    def __init__(self, methods: Mapping[str, Method], mesh: MeshSigner) -> None:
        self._methods = methods
        self._mesh = mesh

    def details(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        method = details.method if isinstance(details.method, str) else details.method.decode()
        call = current_or_none()
        principal = (call.principal if call else None) or mesh_principal()
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        metadata.add(ASSERTION_KEY, self._mesh.sign(principal))
        timeout = details.timeout
        known = self._methods.get(method)
        if timeout is None and known is not None:
            timeout = known.deadline
        if call is not None:
            metadata.add("x-request-id", call.request_id)
            if not telemetry.enabled():  # its own interceptor tells the peer, with the span
                metadata.add("traceparent", f"00-{call.trace_id}-{secrets.token_hex(8)}-01")
            if call.deadline is not None:
                remaining = call.deadline - asyncio.get_running_loop().time()
                timeout = remaining if timeout is None else min(timeout, remaining)
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _Unary(_Outgoing, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self.details(client_call_details), request)


class _Stream(_Outgoing, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self.details(client_call_details), request)
