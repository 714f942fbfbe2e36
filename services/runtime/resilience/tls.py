"""TLS between the processes of a mesh: each shows a certificate, and asks for the other's.

A folder holds `ca.pem`, `cert.pem` and `key.pem`. Every certificate has the DNS name `plexus`: what
it proves is that a process belongs to the mesh; which of them answers is the topology's to say.
"""

from __future__ import annotations

import threading
from pathlib import Path

import grpc

from services.runtime import log

NAME = "plexus"
_FILES = ("ca.pem", "cert.pem", "key.pem")
_logger = log.get(__name__)


class TlsError(Exception):
    """The folder lacks a file. The text says which."""


class Certificates:
    """The three files, read again when they change."""

    def __init__(self, folder: Path) -> None:
        """Read them.

        Raises:
            TlsError: One cannot be read.
        """
        self._folder = folder
        self._lock = threading.Lock()  # a server asks from grpc's threads
        self._stamp = self._stamps()
        self.ca, self.certificate, self.key = self._read()

    def renewed(self) -> bool:
        """Read them again if they changed since they were last read; whether they did."""
        with self._lock:
            try:
                stamp = self._stamps()
                if stamp == self._stamp:
                    return False
                read = self._read()
            except TlsError as error:
                # Half of a renewal, maybe: what was good still is.
                _logger.warning("certificates_unreadable", error=str(error))
                return False
            self._stamp = stamp
            changed = read != (self.ca, self.certificate, self.key)
            self.ca, self.certificate, self.key = read
            return changed

    def _stamps(self) -> list[tuple[int, int, int]]:
        try:
            found = [(self._folder / name).stat() for name in _FILES]
        except OSError as error:
            raise TlsError(f"PLEXUS_TLS_DIR: {error.filename} cannot be read") from error
        return [(each.st_mtime_ns, each.st_ino, each.st_size) for each in found]

    def _read(self) -> tuple[bytes, bytes, bytes]:
        try:
            ca, certificate, key = ((self._folder / name).read_bytes() for name in _FILES)
        except OSError as error:
            raise TlsError(f"PLEXUS_TLS_DIR: {error.filename} cannot be read") from error
        return ca, certificate, key


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """A server that takes callers of the mesh alone; renewed files are for the next handshake."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(certificates.key, certificates.certificate)], certificates.ca
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        return configuration() if certificates.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        fetch,  # type: ignore[arg-type]  # None is allowed: nothing changed
        require_client_authentication=True,
    )


def channel_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """A client that shows who it is; the name that it expects is in `CHANNEL_OPTIONS`."""
    return grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.certificate)


CHANNEL_OPTIONS = (("grpc.ssl_target_name_override", NAME),)
