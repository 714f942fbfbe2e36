"""What an operator may set about the installation. Each module has a file like this of its own."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

# gRPC's core would prepare for forks that carry it on, and warn of each program that we start.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# The kernel's bound on a Unix socket's path is 108 bytes; our names add up to 20.
_MAX_RUN_DIR = 80


class UnusableSetting(Exception):
    """A setting names what cannot be used. The text says why, and holds no secret."""


class PlexusSettings(BaseSettings):
    """Reads `PLEXUS_*` from the environment; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="PLEXUS_", frozen=True, extra="ignore")


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class Settings(PlexusSettings):
    """The installation."""

    data_dir: Path = Field(
        Path(".plexus"), description="Where everything is kept: database, keys, logs."
    )
    host: str = Field("127.0.0.1", description="The address the gateway listens on.")
    port: int = Field(8080, ge=1, le=65535, description="The port the gateway listens on.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much the log says."
    )
    cors_origins: str = Field(
        "", description="Web origins besides loopback that may call, separated by commas."
    )
    max_body_bytes: int = Field(
        4_194_304, ge=1024, le=16_777_216, description="The largest request body."
    )
    drain_seconds: float = Field(
        10.0, ge=0, le=600, description="How long a stop waits for runs under way."
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL (`postgresql://user:password@host/name`); empty: SQLite in the "
        "data directory, or for SHAPE=mesh a PostgreSQL out of a package.",
    )
    database_owner_url: SecretStr = Field(
        SecretStr(""),
        description="The same database as the role that owns the tables and may change them; "
        "without it something else must run `plexus migrate`.",
    )
    database_connections: int = Field(
        8, ge=2, le=200, description="How many connections to PostgreSQL a process keeps."
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        description="Redis, by which replicas agree on limits and hear of news "
        "(`redis://host:6379/0`); empty: each process for itself.",
    )
    groups: str = Field(
        "identity+monitor,llm,history,memory+ingest,context,agents",
        description="Which modules share a process in SHAPE=mesh; those not named have their own.",
    )
    replicas: str = Field(
        "", description="How many processes a group has where it is not one, such as `agents:2`."
    )
    address: str = Field(
        "",
        description="Where a group listens and is reached, with {group}, {replica} and {port}; "
        "empty: Unix sockets in the data directory.",
    )
    mesh_port: int = Field(
        50051, ge=1024, le=65000, description="The first {port} of PLEXUS_ADDRESS."
    )
    listen: str = Field(
        "", description="Where this process listens where that is not its address, in a cluster."
    )
    instance: str = Field(
        "",
        max_length=80,
        description="This process's name, which no other has at the same time, such as a pod's.",
    )
    tls_dir: Path | None = Field(
        None,
        description="A folder with ca.pem, cert.pem and key.pem: processes speak TLS over TCP and "
        "show each other certificates of that authority for the name `plexus`.",
    )
    otlp_endpoint: str = Field(
        "", description="Where traces and metrics go (OTLP over gRPC); empty: nowhere."
    )
    otlp_sample_ratio: float = Field(
        0.1, ge=0, le=1, description="The share of requests that are traced."
    )
    max_calls: int = Field(
        1024,
        ge=16,
        le=100_000,
        description="Calls under way in one process from outside the mesh, streams not counted; "
        "fewer while it cannot keep up. A tenant has its share of them.",
    )
    max_streams: int = Field(
        4096,
        ge=16,
        le=100_000,
        description="Streams under way in one process from outside the mesh.",
    )
    rate_read: int = Field(
        500,
        ge=0,
        description="How many calls a second of one tenant may look something up; 0 is no limit.",
    )
    rate_write: int = Field(
        200, ge=0, description="How many a second may change something; 0 is no limit."
    )
    rate_generate: int = Field(
        50, ge=0, description="How many a second may spend a model's time; 0 is no limit."
    )
    rate_login: int = Field(
        5,
        ge=0,
        description="How many calls a second of one client's address may log in, register or "
        "refresh a token; 0 is no limit.",
    )
    master_key_file: Path | None = Field(
        None,
        description="The master key where it is not in the data directory, such as a mounted "
        "secret. It is never made there.",
    )
    health_listen: str = Field(
        "",
        description="Where this process answers for its health without TLS, such as 0.0.0.0:50050 "
        "for an orchestrator's probes.",
    )
    egress_allow: str = Field(
        "",
        description="Hosts of the inner network that tenants may have called, with commas between "
        "them: names, `*.` and the end of names, addresses, or networks such as `10.0.0.0/8`.",
    )
    strict_json: bool = Field(
        True, description="Whether fields that a call does not know are refused in REST bodies."
    )

    @cached_property
    def directory(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().absolute()

    @cached_property
    def run_dir(self) -> Path:
        """Where sockets are: in the data directory, or beside it where that path is too long."""
        inside = self.directory / "run"
        if len(os.fsencode(inside)) <= _MAX_RUN_DIR:
            return inside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"plexus-{os.getuid()}-{digest}"

    @property
    def database(self) -> Path:
        """The database's file."""
        return self.directory / "plexus.db"

    @property
    def master_key(self) -> Path:
        """The file of the installation's master key."""
        return self.master_key_file or self.directory / "master.key"

    def environment(self, **changed: object) -> dict[str, str]:
        """The environment of a child process with these settings, some of them changed."""
        ours = {f"PLEXUS_{name.upper()}" for name in type(self).model_fields}
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        values = {
            name: value for name, value in {**dict(self), **changed}.items() if value is not None
        }
        return {**inherited, **{f"PLEXUS_{name.upper()}": _text(v) for name, v in values.items()}}

    @property
    def socket(self) -> Path:
        """The Unix socket that the modules serve on."""
        return self.run_dir / "plexus.sock"
