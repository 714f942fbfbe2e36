"""Runs a mesh with defects: `python -m tests.faults.planted revoked_is_good -- up --shape mesh`.

What follows `--` is a command of `python -m services`; without it the embedded shape starts. In a
mesh of processes each gets the defects too.

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
import itertools
from collections.abc import Sequence
from typing import Any

from tests.faults.planting import replace

_FAMILIES = (
    "planted_access",
    "planted_bounds",
    "planted_crashes",
    "planted_effects",
    "planted_growth",
    "planted_leaks",
    "planted_links",
    "planted_load",
    "planted_rotation",
    "planted_replies",
    "planted_stores",
)
_SEPARATOR = "--"


def plant(names: Sequence[str]) -> None:
    """Make these changes to the product in this process."""
    families = [importlib.import_module(f"tests.faults.{name}") for name in _FAMILIES]
    known = {name: make for family in families for name, make in family.DEFECTS.items()}
    for name in names:
        known[name]()


def main(words: Sequence[str]) -> int:
    """Plant, then run."""
    names = list(itertools.takewhile(_SEPARATOR.__ne__, words))
    plant(names)
    if names:
        _plant_in_children(names)
    # What it reads while it is imported is planted by now.
    from services import commands

    return commands.main(words[len(names) + 1 :])


def _plant_in_children(names: Sequence[str]) -> None:
    """The supervisor starts `python -m services`: it shall start this instead."""
    from services.supervisor import Child

    def make(original: Any) -> Any:
        def init(self: Child, name: str, arguments: tuple[str, ...], *more: Any) -> None:
            assert arguments[:2] == ("-m", "services")
            planted = ("-m", "tests.faults.planted", *names, _SEPARATOR, *arguments[2:])
            original(self, name, planted, *more)

        return init

    replace(Child, "__init__", make)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
