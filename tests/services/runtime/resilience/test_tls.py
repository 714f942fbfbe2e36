"""The mesh over a network, with real certificates."""

from __future__ import annotations

import datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from plexus.history.v1.history_service_pb2_grpc import (
    HistoryServiceStub,
)

from services.runtime.clients import Clients
from services.runtime.errors import Unavailable
from services.runtime.resilience.tls import Certificates, TlsError
from services.runtime.status import remote_errors
from services.runtime.topology import Address
from tests.services.runtime.resilience.served import GET, SIGNER, serving


class Authority:
    """Signs certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        self.certificate = self._sign(self._name, self._key, ca=True)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool, dns: str = ""
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if dns:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, folder: Path, dns: str = "plexus") -> Path:
        """Write the three files of a process."""
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns)])
        certificate = self._sign(name, key, ca=False, dns=dns)
        pem = serialization.Encoding.PEM
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
        (folder / "key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return folder


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
    tls = ours.issue(tmp_path / "server")
    async with serving(NETWORK, tls=tls) as (server, sessions):
        await ask(server.port, ours.issue(tmp_path / "client"))
        assert sessions.calls == 1
        with pytest.raises(Unavailable):
            await ask(server.port, None)
        with pytest.raises(Unavailable):
            await ask(server.port, theirs.issue(tmp_path / "stranger"))
        # One that trusts our authority and has a certificate of another.
        half = theirs.issue(tmp_path / "half")
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
    async with serving(NETWORK, tls=ours.issue(tmp_path / "server", dns="other")) as (server, _):
        with pytest.raises(Unavailable):
            await ask(server.port, ours.issue(tmp_path / "client"))


async def test_renewed_certificates_are_for_the_next_connection(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    tls = old.issue(tmp_path / "server")
    async with serving(NETWORK, tls=tls) as (server, sessions):
        mine = old.issue(tmp_path / "client")
        clients = Clients({"history": f"dns:///127.0.0.1:{server.port}"}, SIGNER, mine)
        stub = HistoryServiceStub(clients.channel("history"))
        await stub.GetSession(GET)
        new.issue(tls)
        with pytest.raises(Unavailable):
            await ask(server.port, old.issue(tmp_path / "late"))
        await ask(server.port, new.issue(tmp_path / "early"))
        # The client takes up its own when it looks again; until then its connection goes on.
        await stub.GetSession(GET)
        new.issue(mine)
        clients._look = 0.0
        await stub.GetSession(GET)
        assert sessions.calls == 4
        await clients.close()


def test_half_of_a_renewal_changes_nothing(tmp_path: Path) -> None:
    folder = Authority().issue(tmp_path / "tls")
    certificates = Certificates(folder)
    assert not certificates.renewed()
    before = certificates.key
    (folder / "key.pem").unlink()
    assert not certificates.renewed()
    assert certificates.key == before
    Authority().issue(folder)
    assert certificates.renewed()
    assert not certificates.renewed()
    assert certificates.key != before
    (folder / "ca.pem").unlink()
    with pytest.raises(TlsError, match=r"ca\.pem"):
        Certificates(folder)
