"""Who calls a backend that fails on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.runtime.resilience.backend import Mesh, running


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with running(tmp_path / "s") as running_mesh:
        yield running_mesh
