"""Merging two branches, memory by memory, against where they parted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from services.memory.domain.tree import Change


class Side(IntEnum):
    """A side of a merge; the numbers are the contract's."""

    OURS = 1
    THEIRS = 2


@dataclass(frozen=True, slots=True)
class Clash:
    """A key that both changed, each in its own way; None where it is not there."""

    key: bytes
    base: bytes | None
    ours: bytes | None
    theirs: bytes | None


def merge(
    ours: Mapping[bytes, Change], theirs: Mapping[bytes, Change], sides: Mapping[bytes, Side]
) -> tuple[dict[bytes, bytes | None], list[Clash]]:
    """What is to be set in ours, and what stands in the way.

    Args:
        ours: What changed since they parted, on the branch that is merged into.
        theirs: The same of the branch that is merged.
        sides: How what both changed is to end.
    """
    changes: dict[bytes, bytes | None] = {}
    clashes: list[Clash] = []
    for key, change in theirs.items():
        own = ours.get(key)
        if own is None:
            changes[key] = change.after
        elif own.after == change.after:
            continue
        elif key not in sides:
            clashes.append(Clash(key, change.before, own.after, change.after))
        elif sides[key] == Side.THEIRS:
            changes[key] = change.after
    return changes, clashes
