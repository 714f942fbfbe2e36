"""What the gateway is told by whoever starts it: addresses, the tokens it trusts, its bounds."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import GatewayError

# The kernel's bound on the path of a Unix socket, without its closing zero byte.
_SOCKET_PATH_BYTES = 107


@dataclass(frozen=True)
class Endpoint:
    """Where a module listens: a Unix socket (`path`), or `host` and `port`.

    Raises:
        GatewayError: Neither, both, or a path that the kernel cannot take.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if (self.path is None) == (not self.host):
            raise GatewayError("an endpoint is either a Unix socket or a host with a port")
        if self.path is not None:
            check_socket_path(self.path)
        elif not 0 < self.port < 65536:
            raise GatewayError(f"the endpoint {self.host} has no port between 1 and 65535")

    @property
    def named(self) -> bool:
        """Whether the host is a name that must be resolved."""
        if self.path is not None:
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False


@dataclass(frozen=True)
class Bounds:
    """How much the gateway takes before it refuses. Each one has an answer in `replies`."""

    # A request's body: the largest message gRPC takes by default, so that both agree.
    body_bytes: int = 4 * 1024 * 1024
    # A reply over REST, which is held until it is whole; a page of messages is at most 8 MB.
    reply_bytes: int = 16 * 1024 * 1024
    # All of a request's headers. A token is about 1 KiB.
    header_kib: int = 32
    header_count: int = 64
    # A request that is still arriving, until its reply begins: client streams last as long as their
    # RPC.
    request_seconds: float = 20
    # The headers alone, and the first byte of a new connection.
    header_seconds: float = 5
    # A connection whose caller takes nothing of what it is sent.
    unread_seconds: float = 20
    # A connection without a request. Longer than the pools of usual clients keep theirs.
    idle_connection_seconds: float = 300
    # A connection at all: old ones move to other replicas of the gateway.
    connection_seconds: float = 3600
    # Open connections; past it new ones are refused.
    connections: int = 4096
    # Streams on one HTTP/2 connection.
    streams_per_connection: int = 100
    # Calls under way to one cluster, streams included, and calls waiting for a connection.
    calls: int = 4096
    waiting_calls: int = 1024
    # The health streams of clients, which no contract of ours bounds.
    utility_stream_seconds: float = 3600
    # Memory; at 95 % of it new requests are refused.
    heap_bytes: int = 512 * 1024 * 1024
    # The access log and Envoy's own log, each; then the file is put aside, one generation.
    log_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """How many calls a second the gateway lets pass; 0 is no limit.

    Of one tenant together, or where an RPC needs no credential, of one client's address. The
    contract says which class an RPC is of.

    Raises:
        GatewayError: A number that cannot be a limit.
    """

    read: int = 500
    write: int = 200
    generate: int = 50
    login: int = 5
    # What may be saved up for a burst: this many seconds' calls.
    burst_seconds: float = 2
    # Tenants and addresses whose calls are counted, of each class; whoever was silent for longest
    # is forgotten first.
    counted: int = 10_000

    def __post_init__(self) -> None:
        if min(self.of_class.values()) < 0 or self.burst_seconds <= 0 or self.counted < 1:
            raise GatewayError("a limit is a number of calls a second, or 0 for none")

    @property
    def of_class(self) -> dict[str, int]:
        """The limit of each class, by the contract's name for it."""
        return {
            "READ": self.read,
            "WRITE": self.write,
            "GENERATE": self.generate,
            "LOGIN": self.login,
        }

    def burst(self, rate_class: str, cost: int) -> int:
        """How many calls of a class may come at once: one that costs `cost` always may."""
        return max(math.ceil(self.of_class[rate_class] * self.burst_seconds), cost)

    def retry_seconds(self, cost: int) -> int:
        """After how many whole seconds a refused call that costs `cost` would pass, at the most."""
        return max((math.ceil(cost / rate) for rate in self.of_class.values() if rate), default=1)


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """Everything that Envoy's configuration depends on besides the contracts.

    Raises:
        GatewayError: A value that cannot work.
    """

    # A module's name, such as `agents`, and where it listens. Modules that listen at the same
    # places share one cluster.
    upstreams: Mapping[str, Sequence[Endpoint]]
    # `iss` and `aud` of the tokens, and the file with the keys that verify them, a
    # JSON Web Key Set. It is followed: replace it by a rename, so that nobody reads half of it.
    issuer: str
    audience: str
    jwks_file: Path
    # Configuration, logs and the admin socket; its directory belongs to one gateway.
    run_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    # Origins of browsers: exact ones, and every loopback origin on any port.
    cors_origins: tuple[str, ...] = ()
    allow_loopback_origins: bool = True
    # One JSON object a line; None puts it into `run_dir`.
    access_log: Path | None = None
    # Threads that serve.
    concurrency: int = 2
    bounds: Bounds = field(default_factory=Bounds)
    limits: Limits = field(default_factory=Limits)
    # Whether fields that an RPC does not know are refused in REST bodies; the modules are asked.
    strict_json: bool = True
    # A folder with ca.pem, cert.pem and key.pem, by which the gateway and modules on TCP know each
    # other. It is followed: replace the files by renames.
    tls_dir: Path | None = None

    def __post_init__(self) -> None:
        check_socket_path(self.admin_socket)
        if not self.upstreams or not all(self.upstreams.values()):
            raise GatewayError("every module needs at least one endpoint")

    @property
    def admin_socket(self) -> Path:
        """Envoy's admin interface; nobody else's."""
        return self.run_dir / "envoy-admin.sock"

    @property
    def token_file(self) -> Path:
        """The part of the configuration that changes with the keys."""
        return self.run_dir / "envoy-tokens.json"

    @property
    def certificate_file(self) -> Path:
        """Where Envoy is told of the certificate that it shows to modules."""
        return self.run_dir / "envoy-certificate.json"

    @property
    def authority_file(self) -> Path:
        """Where Envoy is told how to know a module."""
        return self.run_dir / "envoy-authority.json"

    @property
    def access_log_file(self) -> Path:
        """Where the access log goes."""
        return self.access_log or self.run_dir / "access.log"


def check_socket_path(path: Path) -> None:
    """Refuse a path that no Unix socket can have.

    Raises:
        GatewayError: The path is too long.
    """
    if len(str(path).encode()) > _SOCKET_PATH_BYTES:
        raise GatewayError(
            f"the path {path} is too long for a Unix socket (at most {_SOCKET_PATH_BYTES} bytes):"
            " choose a shorter run directory"
        )
