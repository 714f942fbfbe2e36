"""How a defect is planted: something in the product is replaced, and must have been there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

Plant = Callable[[], None]


def module(name: str) -> Any:
    """A module of the product with all that is in it, what it does not export too."""
    return importlib.import_module(f"services.{name}")


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put what `make` makes of the original in its place.

    Raises:
        AttributeError: There is no such thing any more; the defect must be planted elsewhere.
    """
    setattr(owner, name, make(getattr(owner, name)))
