"""What is missing on a machine, and how to mend it: every piece broken once."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError
from services.cli import checks
from services.cli.checks import NOTE, OK, ROOT, WRONG, Finding
from tests.services.cli.conftest import Cli
from tests.services.cli.fake import Fake


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    """Settings for a data directory that is there, and a port that is free."""
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return {"data_dir": str(tmp_path / "data"), "port": port}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLEXUS_LLM_URL", "PLEXUS_LLM_MODEL", "PLEXUS_DATA_DIR", "PLEXUS_URL"):
        monkeypatch.delenv(name, raising=False)


def look(what: str, place: dict[str, Any], root: Path = ROOT) -> Finding:
    """Make one check."""
    machine = checks.Machine(place, root)
    return next(checks.told(what, checks.CHECKS[what], machine))


async def test_a_machine_that_has_everything(bare: Cli, place: dict[str, Any]) -> None:
    done = await bare("doctor", "--data-dir", place["data_dir"], "--port", str(place["port"]))
    rows = [line.split("  ")[0] for line in done.out.splitlines()[1:]]
    assert rows.count(NOTE) == 1
    assert "gateway" in next(line for line in done.out.splitlines() if line.startswith(NOTE))
    assert "\x1b" not in done.out
    # Only what others are changing in this tree may be out of date.
    wrong = [line for line in done.out.splitlines() if line.startswith(WRONG)]
    assert all("generated code" in line for line in wrong)
    assert done.status == (1 if wrong else 0)


def test_nothing_is_changed(tmp_path: Path, place: dict[str, Any]) -> None:
    checks.examine({**place, "data_dir": str(tmp_path / "absent")})
    assert not (tmp_path / "absent").exists()
    assert list(Path(place["data_dir"]).iterdir()) == []


def test_an_old_python(monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2, "final", 0))
    found = checks.CHECKS["Python"]("Python", checks.Machine(place))
    assert (found.mark, found.fact) == (WRONG, "3.10.2")


def test_a_package_that_is_not_there(tmp_path: Path, place: dict[str, Any]) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "runtime.in").write_text("# words\nclick\nno-such-package\n")
    found = look("packages", place, tmp_path)
    assert (found.mark, found.fact) == (WRONG, "missing: no-such-package")
    assert "make setup" in found.mend


def test_a_package_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    found = look("packages", place)
    assert (found.mark, "missing: uvloop" in found.fact) == (WRONG, True)


def test_what_a_check_needs_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "services.runtime.settings")
    findings = {each.what: each for each in checks.examine(place)}
    assert set(findings) == set(checks.CHECKS)
    assert findings["Python"].mark == OK
    assert findings["settings"].fact == "cannot be looked at without pydantic"
    assert findings["data directory"].mark == WRONG


def test_envoy_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    def absent() -> Path:
        raise GatewayError("Envoy is not installed")

    monkeypatch.setattr("gateway.process.envoy_path", absent)
    assert look("Envoy", place).fact == "Envoy is not installed"


@pytest.mark.parametrize(
    ("text", "word"), [("exit 3", "no word"), ("echo no such symbol >&2; exit 1", "no such symbol")]
)
def test_envoy_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, Any], text: str, word: str
) -> None:
    binary = tmp_path / "envoy"
    binary.write_text(f"#!/bin/sh\n{text}\n")
    binary.chmod(0o700)
    monkeypatch.setattr("gateway.process.envoy_path", lambda: binary)
    found = look("Envoy", place)
    assert (found.mark, found.fact) == (WRONG, f"does not run: {word}")


def test_generated_code_that_is_missing(tmp_path: Path, place: dict[str, Any]) -> None:
    found = look("generated code", place, tmp_path)
    assert (found.mark, found.fact) == (WRONG, "generated/python is missing")


@pytest.mark.parametrize(("current", "mark"), [(True, OK), (False, WRONG)])
def test_generated_code_that_is_old(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any], current: bool, mark: str
) -> None:
    monkeypatch.setattr("proto.tools.generate.up_to_date", lambda: current)
    assert look("generated code", place).mark == mark


def test_a_data_directory_that_is_a_file(tmp_path: Path, place: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    found = look("data directory", {**place, "data_dir": str(tmp_path / "file")})
    assert (found.mark, found.fact) == (WRONG, f"{tmp_path / 'file'} is a file")


def test_a_data_directory_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    def refuse(**_: object) -> Iterator[None]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write everywhere
    found = look("data directory", place)
    assert (found.mark, "Permission denied" in found.fact) == (WRONG, True)


@pytest.mark.parametrize(("gigabytes", "mark"), [(0.1, WRONG), (0.5, NOTE), (5, OK)])
def test_the_disk(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any], gigabytes: float, mark: str
) -> None:
    usage = type(shutil.disk_usage("/"))(0, 0, int(gigabytes * 1024**3))
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert look("disk", place).mark == mark


@pytest.mark.parametrize(
    ("size", "mode", "mark", "word"),
    [
        (32, 0o600, OK, "only its owner"),
        (32, 0o644, WRONG, "others can read it"),
        (31, 0o600, WRONG, "has 31 bytes"),
    ],
)
def test_the_master_key(place: dict[str, Any], size: int, mode: int, mark: str, word: str) -> None:
    key = Path(place["data_dir"]) / "master.key"
    key.write_bytes(bytes(size))
    key.chmod(mode)
    found = look("master key", place)
    assert (found.mark, word in found.fact) == (mark, True)


def test_the_database(place: dict[str, Any]) -> None:
    path = Path(place["data_dir"]) / "plexus.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert look("database", place).mark == OK
    path.write_bytes(b"no database" * 1000)
    found = look("database", place)
    assert (found.mark, str(path) in found.mend) == (WRONG, True)


def test_a_port_that_another_program_has(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    monkeypatch.setattr("services.cli.address._PROBE_SECONDS", 0.2)  # it accepts and says nothing
    with socket.create_server(("127.0.0.1", place["port"])):
        found = look("port", place)
    assert (found.mark, found.fact) == (
        WRONG,
        f"port {place['port']} is taken by another program",
    )


async def test_a_port_that_plexus_has(cli: Cli, fake: Fake, place: dict[str, Any]) -> None:
    port = cli.url.rpartition(":")[2]
    lock = Path(place["data_dir"]) / "lock"
    lock.write_text(f'{{"pid": 42, "url": "{cli.url}"}}')
    done = await cli("doctor", "--port", port, "--data-dir", place["data_dir"])
    assert f"{port} is in use by Plexus (process 42)" in done.out
    assert f"serves at {cli.url}" in done.out
    fake.unwell()
    done = await cli("doctor", "--port", port, "--data-dir", place["data_dir"])
    assert (done.status, "is up, a module is not" in done.out) == (1, True)


def test_a_setting_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    monkeypatch.setenv("PLEXUS_DRAIN_SECONDS", "long")
    found = look("settings", place)
    assert (found.mark, "PLEXUS_DRAIN_SECONDS: " in found.fact) == (WRONG, True)


def test_the_model_server(monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]) -> None:
    monkeypatch.setenv("PLEXUS_LLM_MODEL", "some")
    monkeypatch.setenv("PLEXUS_LLM_URL", f"http://127.0.0.1:{place['port']}/v1")
    found = look("model server", place)
    assert (found.mark, "cannot be reached" in found.fact) == (WRONG, True)
    with socket.create_server(("127.0.0.1", place["port"])):
        assert look("model server", place).mark == OK
    monkeypatch.delenv("PLEXUS_LLM_MODEL")
    assert "PLEXUS_LLM_MODEL" in look("model server", place).fact
