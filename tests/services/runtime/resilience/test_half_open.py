"""A connection that died without a word, between two modules on a network."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub

from services.runtime import clients
from services.runtime.clients import Clients
from services.runtime.topology import Address
from tests.faults.proxy import BOTH, FaultProxy, Way
from tests.services.runtime.resilience.served import GET, SIGNER, serving

_QUICK = {
    "grpc.keepalive_time_ms": 200,
    "grpc.keepalive_timeout_ms": 200,
    "grpc.http2.ping_timeout_ms": 200,
}


async def test_it_is_found_while_nothing_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    options = tuple((key, _QUICK.get(key, value)) for key, value in clients._NETWORK_OPTIONS)
    monkeypatch.setattr(clients, "_NETWORK_OPTIONS", options)
    async with AsyncExitStack() as stack:
        listen = Address(host="127.0.0.1", port=0)
        server, _ = await stack.enter_async_context(serving(listen))
        proxy = FaultProxy(Address(host="127.0.0.1", port=server.port))
        await stack.enter_async_context(proxy)
        mesh = Clients({"history": f"dns:///{proxy.address.text}"}, SIGNER)
        stack.push_async_callback(mesh.close)
        history = HistoryServiceStub(mesh.channel("history"))
        await history.GetSession(GET)
        proxy.set(swallow=BOTH)
        await asyncio.sleep(1.0)
        proxy.heal()
        # It was asked whether it is there, and the next call need not find out.
        assert proxy.counts.swallowed[Way.UP] > 0
        await history.GetSession(GET, timeout=0.3)
        assert proxy.counts.accepted == 2
