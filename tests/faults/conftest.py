"""Which suites the short run has."""

from __future__ import annotations

from tests.faults.suite import FULL

# They start whole meshes and kill them; on a loaded machine they were not seen steady yet, so that
# `make faults` alone runs them.
collect_ignore = (
    []
    if FULL
    else [
        "test_cut_run.py",
        "test_effects.py",
        "test_full_disk.py",
        "test_killed_database.py",
        "test_killed_process.py",
        "test_killed_whole.py",
        "test_links.py",
        "test_overload.py",
        "test_rolling_restart.py",
        "test_rotation.py",
        "test_soak.py",
    ]
)
