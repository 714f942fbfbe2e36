"""Certificates for tests of TLS, made as an operator's authority would make them."""

from __future__ import annotations

import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority for a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        builder = self._builder(self._name, self._key)
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        made = builder.add_extension(constraint, critical=True).sign(self._key, hashes.SHA256())
        self.certificate = made.public_bytes(_PEM)

    def issue(self, name: str = "plexus") -> tuple[bytes, bytes]:
        """A private key, and a certificate for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a process")])
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = self._builder(subject, key).add_extension(names, critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return private, made.public_bytes(_PEM)

    def write(self, folder: Path, name: str = "plexus") -> Path:
        """What a process has of it, each file replaced by a rename."""
        folder.mkdir(exist_ok=True)
        key, certificate = self.issue(name)
        files = {"ca.pem": self.certificate, "cert.pem": certificate, "key.pem": key}
        for file, content in files.items():
            fresh = folder / f"{file}.new"
            fresh.write_bytes(content)
            fresh.replace(folder / file)
        return folder

    def serving(self, name: str = "plexus") -> grpc.ServerCredentials:
        """Credentials of a module that asks for certificates of this authority."""
        return grpc.ssl_server_credentials([self.issue(name)], self.certificate, True)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
        )
