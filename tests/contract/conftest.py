"""The contracts of the working tree, compiled once, and copies of them to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.tools.descriptors import Contracts
from proto.tools.generate import PROTO, descriptor_set

Edit = tuple[str, str, str]
Spoil = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A descriptor set of today's contracts, whatever state `generated/` is in."""
    target = tmp_path_factory.mktemp("contracts") / "plexus.binpb"
    descriptor_set(PROTO, target)
    return target


@pytest.fixture(scope="session")
def contracts(compiled: Path) -> Contracts:
    """Today's contracts."""
    return Contracts.read(compiled)


def copy_contracts(target: Path) -> Path:
    """Copy the contracts to `target/proto`."""
    shutil.copytree(PROTO / "plexus", target / "proto" / "plexus")
    return target / "proto"


def edit(roots: Path, edits: list[Edit]) -> None:
    """Replace text in contracts, each time exactly one place: (file below plexus, old, new)."""
    for name, old, new in edits:
        path = roots / "plexus" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} holds this {text.count(old)} times: {old!r}"
        path.write_text(text.replace(old, new))


@pytest.fixture
def spoil(tmp_path: Path) -> Spoil:
    """Compile a copy of the contracts with some edits and added files."""

    def make(edits: list[Edit], added: dict[str, str] | None = None) -> Path:
        roots = copy_contracts(tmp_path)
        edit(roots, edits)
        for name, text in (added or {}).items():
            path = roots / "plexus" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        target = tmp_path / "spoiled.binpb"
        descriptor_set(roots, target)
        return target

    return make
