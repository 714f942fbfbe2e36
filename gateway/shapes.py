"""Small shapes that Envoy's configuration repeats."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TYPES = "type.googleapis.com/envoy."


def typed(name: str, **fields: Any) -> Json:
    """A typed configuration: `name` without the prefix that all of Envoy's types share."""
    return {"@type": f"{_TYPES}{name}", **fields}


def extension(name: str, type_name: str, **fields: Any) -> Json:
    """A named extension with its typed configuration."""
    return {"name": f"envoy.{name}", "typed_config": typed(type_name, **fields)}


def seconds(value: float) -> str:
    """A duration as protobuf's JSON writes it, to the millisecond."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
