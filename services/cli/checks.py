"""What `plexus doctor` looks at.

Each check stands alone and imports what it needs itself, so that a broken installation is told
about rather than in the way: whatever a check ends with becomes a line of the table.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from services.cli.address import Address, Gateway, probe
from services.cli.settings import CliSettings

if TYPE_CHECKING:
    from services.runtime.settings import Settings

OK, NOTE, WRONG = "ok", "note", "wrong"
ROOT = Path(__file__).resolve().parents[2]
_LEAST_PYTHON = (3, 11)
# What stands on compiled code or generates some: being installed does not mean that it loads.
_IMPORTS = (
    *("grpc", "google.protobuf", "google.rpc.error_details_pb2", "grpc_tools", "protovalidate"),
    *("sqlalchemy", "jwt", "cryptography", "argon2", "pydantic_settings"),
    *("uvloop", "click", "rich"),
)
_GIGABYTE = 1024**3
_LEAST_FREE, _LITTLE_FREE = 0.2, 1.0
_KEY_BYTES = 32
# The kernel's bound on the path of a Unix socket, less the zero that ends it.
_SOCKET_BYTES = 107
_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the table: how it is, what, what was found, and how to mend it."""

    mark: str
    what: str
    fact: str
    mend: str = ""


@dataclass(frozen=True)
class Machine:
    """What is looked at.

    Attributes:
        given: Settings that the command line names.
        root: Where the sources are.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    root: Path = ROOT

    @cached_property
    def settings(self) -> Settings:
        """What `plexus up` would run with."""
        from services.runtime.settings import Settings

        return Settings(**self.given)

    @property
    def address(self) -> Address:
        """Where the gateway of this machine is, or is going to be."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104  compared, not bound
        name = f"[{host}]" if ":" in host else host
        return Address.parse(f"http://{name}:{self.settings.port}")


def examine(given: Mapping[str, Any], root: Path = ROOT) -> list[Finding]:
    """Make every check."""
    machine = Machine(given, root)
    return [finding for what, check in CHECKS.items() for finding in told(what, check, machine)]


Check = Callable[[str, Machine], Finding]


def told(what: str, check: Check, machine: Machine) -> Iterator[Finding]:
    """What a check finds, or why it could not look."""
    try:
        yield check(what, machine)
    except ImportError as error:
        fact = f"cannot be looked at without {error.name or error}"
        yield Finding(WRONG, what, fact, "Run `make setup`.")
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        fact = f"cannot be looked at: {error}"
        yield Finding(WRONG, what, fact, "Mend what is wrong above, then run this again.")


def _python(what: str, _: Machine) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _LEAST_PYTHON:
        return Finding(WRONG, what, version, "Install Python 3.11 or later, then `make setup`.")
    return Finding(OK, what, version)


def _packages(what: str, machine: Machine) -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    missing = []
    wanted = _requirements(machine.root / "requirements" / "runtime.in")
    for name in wanted:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    for name in _IMPORTS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{name} ({error})")
    if missing:
        return Finding(WRONG, what, f"missing: {', '.join(missing)}", "Run `make setup`.")
    return Finding(OK, what, f"all {len(wanted)} are there and load")


def _requirements(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
    return [name[0] for name in names if name]


def _settings(what: str, machine: Machine) -> Finding:
    from pydantic import ValidationError

    try:
        settings = machine.settings
    except ValidationError as error:
        wrong = "; ".join(
            f"{'_'.join(('PLEXUS', *map(str, each['loc']))).upper()}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        )
        return Finding(WRONG, what, wrong, "Change it in the environment, or unset it.")
    return Finding(OK, what, f"{settings.host}:{settings.port}, data in {settings.data_dir}")


def _envoy(what: str, _: Machine) -> Finding:
    from gateway.errors import GatewayError
    from gateway.process import envoy_path

    try:
        path = envoy_path()
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except GatewayError as error:
        return Finding(WRONG, what, str(error), "Run `make setup`.")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(WRONG, what, f"does not run: {error}", _ENVOY)
    found = re.search(r"/(\d+\.\d+\.\d+)/", done.stdout)
    if done.returncode or not found:
        said = (done.stderr or done.stdout).strip().splitlines()
        return Finding(WRONG, what, f"does not run: {said[-1] if said else 'no word'}", _ENVOY)
    return Finding(OK, what, found[1])


_ENVOY = "It needs Linux (x86-64, arm64) or macOS (arm64); on one of these run `make setup`."


def _generated(what: str, machine: Machine) -> Finding:
    for name in ("python", "plexus.binpb", "openapi.json"):
        if not (machine.root / "generated" / name).exists():
            return Finding(WRONG, what, f"generated/{name} is missing", "Run `make generate`.")
    from proto.tools import generate

    if not generate.up_to_date():
        return Finding(WRONG, what, "older than the contracts", "Run `make generate`.")
    return Finding(OK, what, "up to date")


def _data_dir(what: str, machine: Machine) -> Finding:
    folder = machine.settings.directory
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    elsewhere = "Choose another with --data-dir or PLEXUS_DATA_DIR."
    if not existing.is_dir():
        return Finding(WRONG, what, f"{existing} is a file", elsewhere)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        fact = f"{existing} cannot be written to: {error.strerror}"
        return Finding(WRONG, what, fact, f"Give yourself the right to. {elsewhere}")
    state = "can be written to" if folder.exists() else "is made at the first start"
    return Finding(OK, what, f"{folder} {state}")


def _disk(what: str, machine: Machine) -> Finding:
    folder = machine.settings.directory
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free / _GIGABYTE
    mark = WRONG if free < _LEAST_FREE else NOTE if free < _LITTLE_FREE else OK
    mend = "" if mark == OK else "Free some, or choose another data directory."
    return Finding(mark, what, f"{free:.1f} GiB free", mend)


def _master_key(what: str, machine: Machine) -> Finding:
    path = machine.settings.directory / "master.key"
    if not path.exists():
        return Finding(OK, what, "is made at the first start")
    found = path.stat()
    if found.st_mode & 0o077:
        return Finding(WRONG, what, "others can read it", f"Run `chmod 600 {path}`.")
    if found.st_size != _KEY_BYTES:
        fact = f"has {found.st_size} bytes, not {_KEY_BYTES}"
        return Finding(WRONG, what, fact, f"Put {path} back from a backup.")
    return Finding(OK, what, "only its owner can read it")


def _database(what: str, machine: Machine) -> Finding:
    from services.runtime.db import DatabaseDamaged, check_file

    path = machine.settings.directory / "plexus.db"
    if not path.exists():
        return Finding(OK, what, "is made at the first start")
    try:
        check_file(path)
    except DatabaseDamaged:
        mend = f"Put a backup in place of {path}, or move it away to start empty."
        return Finding(WRONG, what, "damaged, or no database", mend)
    return Finding(OK, what, f"opens, {path.stat().st_size / 1024**2:.1f} MiB")


def _socket_path(what: str, machine: Machine) -> Finding:
    length = len(os.fsencode(machine.settings.socket))
    fact = f"{length} of {_SOCKET_BYTES} bytes"
    if length > _SOCKET_BYTES:
        return Finding(WRONG, what, fact, "Choose a data directory with a shorter path.")
    return Finding(OK, what, fact)


def _port(what: str, machine: Machine) -> Finding:
    from gateway.errors import GatewayError
    from gateway.process import check_port

    settings = machine.settings
    try:
        check_port(settings.host, settings.port)
    except GatewayError as error:
        if probe(machine.address) in (Gateway.SERVING, Gateway.NOT_SERVING):
            return Finding(OK, what, f"{settings.port} is in use by Plexus{_owner(settings)}")
        fact = re.split(r"[;:] set PORT|; set PORT", str(error))[0]
        return Finding(WRONG, what, fact, "Stop that program, or choose another with --port.")
    return Finding(OK, what, f"{settings.port} is free")


def _owner(settings: Settings) -> str:
    """The process that holds the data directory, where it says so."""
    try:
        owner = json.loads((settings.directory / "lock").read_text())
        return f" (process {owner['pid']})" if owner["url"].endswith(f":{settings.port}") else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # another data directory's


def _gateway(what: str, machine: Machine) -> Finding:
    named = CliSettings().url if not machine.given else machine.address.url
    address = Address.parse(named)
    found = probe(address)
    if found is Gateway.SERVING:
        return Finding(OK, what, f"serves at {address.url}")
    if found is Gateway.NOT_SERVING:
        log = machine.settings.directory / "logs" / "plexus.log"
        return Finding(WRONG, what, "is up, a module is not", f"See {log} and `plexus status`.")
    if found is Gateway.STRANGER:
        fact = f"what answers at {address.url} is not Plexus"
        return Finding(WRONG, what, fact, "Name another address with PLEXUS_URL or --port.")
    return Finding(NOTE, what, f"nobody answers at {address.url}", "Start it with `plexus up`.")


def _model_server(what: str, _: Machine) -> Finding:
    from pydantic import ValidationError

    from services.llm.settings import LlmSettings

    try:
        settings = LlmSettings()
    except ValidationError as error:
        wrong = "; ".join(each["msg"] for each in error.errors(include_input=False))
        return Finding(WRONG, what, wrong, "Change it in the environment, or unset it.")
    if not settings.llm_url:
        return Finding(OK, what, "none; the built-in offline model answers")
    parts = urlsplit(settings.llm_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_SECONDS).close()
    except OSError as error:
        fact = f"{parts.hostname}:{port} cannot be reached: {error.strerror or error}"
        return Finding(WRONG, what, fact, "Start it, or change PLEXUS_LLM_URL.")
    return Finding(OK, what, f"{parts.hostname}:{port} can be reached")


CHECKS: dict[str, Check] = {
    "Python": _python,
    "packages": _packages,
    "settings": _settings,
    "Envoy": _envoy,
    "generated code": _generated,
    "data directory": _data_dir,
    "disk": _disk,
    "master key": _master_key,
    "database": _database,
    "socket path": _socket_path,
    "port": _port,
    "gateway": _gateway,
    "model server": _model_server,
}
