"""Which suites run one after another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.suite import FULL

# They start whole meshes and judge how long things take: two of them at one time would judge each
# other. In the full form they are nearly all there is, and are judged net of waits.
_ALONE = {
    "test_cut_run",
    "test_effects",
    "test_full_disk",
    "test_killed_database",
    "test_killed_process",
    "test_killed_whole",
    "test_links",
    "test_overload",
    "test_rolling_restart",
    "test_rotation",
    "test_soak",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has them all."""
    for item in items:
        if not FULL and Path(item.path).stem in _ALONE:
            item.add_marker(pytest.mark.xdist_group("faults"))
