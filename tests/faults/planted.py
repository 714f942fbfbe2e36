"""Runs a mesh with defects: `python -m tests.faults.planted revoked_is_good other_defect`.

Each defect is a change to the product as it stands in memory, made before it starts. Nothing in the
product knows of it, and where the product changed so that a defect no longer fits, this says so.
"""

from __future__ import annotations

import sys

# isort: off
# Before grpc, as the product does: reading the settings tells grpc how to start.
import services.runtime.settings  # noqa: F401
# isort: on

import importlib
from collections.abc import Sequence

_FAMILIES = ("planted_access", "planted_bounds", "planted_leaks", "planted_replies")


def main(names: Sequence[str]) -> int:
    """Plant, then run."""
    families = [importlib.import_module(f"tests.faults.{name}") for name in _FAMILIES]
    known = {name: plant for family in families for name, plant in family.DEFECTS.items()}
    for name in names:
        known[name]()
    # What it reads while it is imported is planted by now.
    from services import up

    return up.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
