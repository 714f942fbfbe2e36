"""Where an installation is, and whether somebody answers there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from services.cli.errors import Failure

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEALTH_PATH = "/healthz"
# What the gateway itself answers there, so that another server is not taken for it.
_ANSWERS = {(200, b"ok"): "serving", (503, b"unavailable"): "not serving"}
_PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class Address:
    """Where an installation is, from its URL.

    Attributes:
        url: In its shortest form; logins are kept under it.
        host: A name or an IP address.
        port: Always there.
        secure: Whether it speaks TLS.
    """

    url: str
    host: str
    port: int
    secure: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a URL.

        Raises:
            Failure: It is none that a gateway can have.
        """
        parts = urlsplit(text.strip())
        host, port = parts.hostname, None
        with suppress(ValueError):
            port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in ("http", "https") or not host or port is None:
            host = None
        if host is None or port is None or parts.path not in ("", "/") or parts.query:
            raise Failure(
                f"{text!r} is no address of an installation. Give one like "
                "http://127.0.0.1:8080 with --url or PLEXUS_URL.",
                exit_code=2,
            )
        name = f"[{host}]" if ":" in host else host
        return cls(f"{parts.scheme}://{name}:{port}", host, port, parts.scheme == "https")

    @property
    def target(self) -> str:
        """The same as gRPC names it."""
        return self.url.partition("://")[2]

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return self.host in _LOOPBACK


class Gateway(Enum):
    """What was found at an address."""

    SERVING = "serving"
    NOT_SERVING = "not serving"
    STRANGER = "not Plexus"
    UNREACHABLE = "unreachable"


def probe(address: Address) -> Gateway:
    """Ask the gateway how it is; it answers without a login."""
    import http.client  # a third of the time that `plexus --help` would take

    kind = http.client.HTTPSConnection if address.secure else http.client.HTTPConnection
    connection = kind(address.host, address.port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", _HEALTH_PATH)
        reply = connection.getresponse()
        answer = _ANSWERS.get((reply.status, reply.read(64).strip()))
    except http.client.HTTPException:
        return Gateway.STRANGER
    except OSError:
        return Gateway.UNREACHABLE
    finally:
        connection.close()
    return Gateway(answer) if answer else Gateway.STRANGER
