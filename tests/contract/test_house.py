"""The house's rules hold everywhere, and each of them can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from proto.tools.generate import ROOT
from tests.contract import house

MODULES = (
    "identity",
    "llm",
    "history",
    "memory",
    "ingest",
    "context",
    "agents",
    "interop",
    "monitor",
)

# For each rule: the file, the line that breaks it, and lines in the same file that do not.
DEFECTS: dict[str, list[tuple[str, str]]] = {
    "DOMAIN_IS_PURE": [
        ("services/new/domain.py", "import grpc"),
        ("services/new/domain.py", "from sqlalchemy import Table"),
        ("services/new/domain.py", "from plexus.agents.v1 import run_pb2"),
        ("services/new/domain.py", "from google.protobuf import timestamp_pb2"),
        ("services/new/domain.py", "from services.runtime import db"),
        ("services/new/domain.py", "from .store import Store"),
        ("services/new/domain/rules.py", "import grpc"),
    ],
    "MODULE_STANDS_ALONE": [
        ("services/new/service.py", "from services.old.service import Service"),
        ("services/new/service.py", "from services import old"),
        ("services/new/service.py", "from ..old import service"),
        ("services/new/service.py", "import services.app"),
        ("services/new/migrations/first.py", "def up():\n    from services.old import tables"),
    ],
    "RUNTIME_KNOWS_NO_MODULE": [
        ("services/runtime/server.py", "from services.new import module"),
        ("services/runtime/server.py", "from ..new import module"),
        ("services/runtime/server.py", "from plexus.agents.v1 import run_pb2"),
    ],
    "COMMIT_IS_THE_RUNTIMES": [
        ("services/new/store.py", "async def f(session):\n    await session.commit()"),
        ("services/runtime/server.py", "connection.commit()"),
    ],
    "ENVIRONMENT_IS_SETTINGS": [
        ("services/new/service.py", "import os\nKEY = os.environ['KEY']"),
        ("services/app.py", "import os\nKEY = os.getenv('KEY')"),
        ("gateway/config.py", "from os import environ"),
    ],
    "SERVICER_CATCHES_NOTHING": [
        ("services/new/servicer.py", "try:\n    f()\nexcept KeyError:\n    raise"),
        ("services/new/servicer.py", "with contextlib.suppress(KeyError):\n    f()"),
    ],
    "CANCELLING_GOES_ON": [
        ("services/new/workers.py", "try:\n    f()\nexcept asyncio.CancelledError:\n    log()"),
        ("services/new/workers.py", "try:\n    f()\nexcept (OSError, CancelledError):\n    log()"),
        ("services/new/workers.py", "try:\n    f()\nexcept BaseException:\n    log()"),
        ("services/new/workers.py", "try:\n    f()\nexcept:\n    def g():\n        raise"),
        ("gateway/process.py", "with suppress(asyncio.CancelledError):\n    await task"),
    ],
    "FAILURES_ARE_SEEN": [
        ("services/new/workers.py", "try:\n    f()\nexcept Exception:\n    pass"),
        (
            "services/new/workers.py",
            "def f():\n    try:\n        g()\n    except Exception:\n        return None",
        ),
        (
            "services/new/workers.py",
            "while f():\n try:\n  g()\n except (KeyError, Exception):\n  continue",
        ),
        ("proto/tools/new.py", "with contextlib.suppress(Exception):\n    f()"),
    ],
}
# What looks like a breach and is none.
FINE = [
    ("services/new/domain.py", "import dataclasses\nfrom services.runtime.errors import NotFound"),
    ("services/new/domain.py", "from services.runtime import errors"),
    ("services/new/domain/rules.py", "from services.new.domain.nouns import Noun"),
    ("services/new/service.py", "from services.runtime import db\nfrom services.new import domain"),
    ("services/new/service.py", "from plexus.old.v1 import old_pb2"),
    ("services/new/service.py", "from .domain import Noun"),
    ("services/app.py", "from services.new import module"),
    ("services/runtime/server.py", "from plexus.options.v1 import options_pb2"),
    ("services/runtime/db/postgres.py", "connection.commit()"),
    ("services/new/store.py", "repository.commit(branch, records)"),
    ("services/new/settings.py", "import os\nKEY = os.environ['KEY']"),
    ("services/new/servicer.py", "try:\n    f()\nfinally:\n    g()"),
    (
        "services/new/workers.py",
        "try:\n    f()\nexcept asyncio.CancelledError:\n    g()\n    raise",
    ),
    ("services/new/workers.py", "try:\n    f()\nexcept Exception as error:\n    log(error)"),
    ("services/new/workers.py", "try:\n    f()\nexcept KeyError:\n    pass"),
    ("services/new/workers.py", "with contextlib.suppress(OSError):\n    f()"),
    (
        "services/new/workers.py",
        "try:\n    f()\nexcept BaseException as error:  # house: it is told\n    g(error)",
    ),
]


def read(path: PurePosixPath) -> str:
    return (ROOT / path).read_bytes().decode(errors="ignore")


@pytest.fixture(scope="module")
def ours() -> list[PurePosixPath]:
    return house.files_of_ours(ROOT)


def test_the_code_keeps_every_rule(ours: list[PurePosixPath]) -> None:
    code = [path for path in ours if path.suffix == ".py"]
    assert any(path.parts[0] == "services" for path in code)
    breaches = [breach for path in code for breach in house.check(path, read(path))]
    assert not breaches, "\n".join(["", *breaches])


def test_every_rule_has_a_planted_defect() -> None:
    assert set(DEFECTS) == set(house.RULES)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [(rule, path, text) for rule, planted in DEFECTS.items() for path, text in planted],
)
def test_a_planted_defect_is_found(rule: str, path: str, text: str) -> None:
    assert any(f"[{rule}]" in breach for breach in house.check(PurePosixPath(path), text))


@pytest.mark.parametrize(("path", "text"), FINE)
def test_what_is_right_is_left_alone(path: str, text: str) -> None:
    assert house.check(PurePosixPath(path), text) == []


def test_an_excuse_needs_a_reason() -> None:
    text = "try:\n    f()\nexcept Exception:  # house:\n    pass"
    assert house.check(PurePosixPath("services/new/workers.py"), text) != []


def test_no_file_is_too_long(ours: list[PurePosixPath]) -> None:
    breaches = [breach for path in ours for breach in house.too_long(path, read(path))]
    assert not breaches, "\n".join(["", *breaches])


def test_a_long_file_is_found() -> None:
    assert house.too_long(PurePosixPath("a/b.proto"), "\n" * 401) != []
    assert house.too_long(PurePosixPath("a/b.py"), "\n" * 400) == []


def test_no_file_holds_an_address_of_one_machine(ours: list[PurePosixPath]) -> None:
    breaches = [breach for path in ours for breach in house.addresses(path, read(path))]
    assert not breaches, "\n".join(["", *breaches])


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "pypi" + ".org/simple",
        '"resolved": "https://registry.' + 'npmjs.org/x"',
        "--index" + "-url x",
        'ROOT = "/ho' + 'me/someone/plexus"',
        "cd /wo" + "rk/plexus",
    ],
)
def test_an_address_of_one_machine_is_found(text: str) -> None:
    assert house.addresses(PurePosixPath("Makefile"), text) != []


@pytest.mark.parametrize(
    "text", ["GET /v1/home/page", *("/".join(("a.org", name, "x")) for name in ("work", "root"))]
)
def test_another_path_is_left_alone(text: str) -> None:
    assert house.addresses(PurePosixPath("README.md"), text) == []


def test_nothing_generated_is_kept(ours: list[PurePosixPath]) -> None:
    assert house.generated(ours) == []


def test_something_generated_is_found() -> None:
    made, readme = PurePosixPath("generated/openapi.json"), PurePosixPath("generated/README.md")
    assert len(house.generated([made, readme])) == 1


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    """A tree with the house's shape and the house's own configuration."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("", "runtime", *MODULES):
        (tmp_path / "services" / folder).mkdir()
        (tmp_path / "services" / folder / "__init__.py").touch()
    for name in ("module", "servicer", "service", "store", "domain"):
        (tmp_path / "services" / "agents" / f"{name}.py").touch()
    (tmp_path / "services" / "runtime" / "errors.py").touch()
    return tmp_path


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [command, "--no-cache", "--config", "pyproject.toml"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_that_go_downward_pass(small_house: Path) -> None:
    agents = small_house / "services" / "agents"
    (agents / "module.py").write_text("from services.agents import servicer, service, store\n")
    (agents / "service.py").write_text("from services.agents import domain, store\n")
    (agents / "domain.py").write_text("from services.runtime.errors import __name__\n")
    done = lint_imports(small_house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "text", "broken"),
    [
        ("agents/service.py", "import services.llm", "Modules meet through their contracts alone"),
        ("runtime/errors.py", "import services.llm", "The runtime knows no module"),
        ("agents/domain.py", "import services.agents.store", "imports go downward"),
        ("agents/service.py", "import services.agents.servicer", "imports go downward"),
    ],
)
def test_imports_that_do_not_are_found(
    path: str, text: str, broken: str, small_house: Path
) -> None:
    (small_house / "services" / path).write_text(f"{text}\n")
    done = lint_imports(small_house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(broken in line and "BROKEN" in line for line in done.stdout.splitlines())
