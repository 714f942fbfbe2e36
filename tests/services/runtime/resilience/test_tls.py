"""The mesh over a network, with real certificates."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from plexus.history.v1.history_service_pb2_grpc import (
    HistoryServiceStub,
)

from services.runtime.clients import Clients
from services.runtime.errors import Unavailable
from services.runtime.resilience.tls import Certificates, TlsError
from services.runtime.status import remote_errors
from services.runtime.topology import Address
from tests.certificates import Authority
from tests.services.runtime.resilience.served import GET, SIGNER, serving

NETWORK = Address(host="127.0.0.1", port=0)


async def ask(port: int, tls: Path | None) -> None:
    clients = Clients({"history": f"dns:///127.0.0.1:{port}"}, SIGNER, tls)
    try:
        with remote_errors():
            await HistoryServiceStub(clients.channel("history")).GetSession(GET, timeout=2)
    finally:
        await clients.close()


async def test_the_mesh_believes_its_own_certificates_alone(tmp_path: Path) -> None:
    ours, theirs = Authority(), Authority()
    tls = ours.write(tmp_path / "server")
    async with serving(NETWORK, tls=tls) as (server, sessions):
        await ask(server.port, ours.write(tmp_path / "client"))
        assert sessions.calls == 1
        with pytest.raises(Unavailable):
            await ask(server.port, None)
        with pytest.raises(Unavailable):
            await ask(server.port, theirs.write(tmp_path / "stranger"))
        # One that trusts our authority and has a certificate of another.
        half = theirs.write(tmp_path / "half")
        (half / "ca.pem").write_bytes((tls / "ca.pem").read_bytes())
        with pytest.raises(Unavailable):
            await ask(server.port, half)
        # One that shows no certificate at all.
        bare = grpc.aio.secure_channel(
            f"127.0.0.1:{server.port}",
            grpc.ssl_channel_credentials((tls / "ca.pem").read_bytes()),
            options=(("grpc.ssl_target_name_override", "plexus"),),
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await HistoryServiceStub(bare).GetSession(GET, timeout=2)
        await bare.close()
        assert sessions.calls == 1


async def test_a_server_with_another_name_is_not_believed(tmp_path: Path) -> None:
    ours = Authority()
    async with serving(NETWORK, tls=ours.write(tmp_path / "server", name="other")) as (server, _):
        with pytest.raises(Unavailable):
            await ask(server.port, ours.write(tmp_path / "client"))


async def test_renewed_certificates_are_for_the_next_connection(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    tls = old.write(tmp_path / "server")
    async with serving(NETWORK, tls=tls) as (server, sessions):
        mine = old.write(tmp_path / "client")
        clients = Clients({"history": f"dns:///127.0.0.1:{server.port}"}, SIGNER, mine)
        stub = HistoryServiceStub(clients.channel("history"))
        await stub.GetSession(GET)
        new.write(tls)
        with pytest.raises(Unavailable):
            await ask(server.port, old.write(tmp_path / "late"))
        await ask(server.port, new.write(tmp_path / "early"))
        # The client takes up its own when it looks again; until then its connection goes on.
        await stub.GetSession(GET)
        new.write(mine)
        clients._look = 0.0
        await stub.GetSession(GET)
        assert sessions.calls == 4
        await clients.close()


def test_half_of_a_renewal_changes_nothing(tmp_path: Path) -> None:
    folder = Authority().write(tmp_path / "tls")
    certificates = Certificates(folder)
    assert not certificates.renewed()
    before = certificates.key
    (folder / "key.pem").unlink()
    assert not certificates.renewed()
    assert certificates.key == before
    Authority().write(folder)
    assert certificates.renewed()
    assert not certificates.renewed()
    assert certificates.key != before
    (folder / "ca.pem").unlink()
    with pytest.raises(TlsError, match=r"ca\.pem"):
        Certificates(folder)
