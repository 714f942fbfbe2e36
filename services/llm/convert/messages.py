"""Protobuf messages as JSON schemas, for models that must answer with one.

The schema describes protobuf's JSON mapping (protobuf.dev/programming-guides/json). It is given to
a model and checked against, so it says what a message may hold and leaves the rest to the parser.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.runtime.errors import InvalidRequest

_Kind = FieldDescriptor
_TYPES: dict[int, str | list[str]] = {
    **dict.fromkeys(
        (
            *(_Kind.TYPE_INT32, _Kind.TYPE_SINT32, _Kind.TYPE_SFIXED32),
            *(_Kind.TYPE_UINT32, _Kind.TYPE_FIXED32),
        ),
        "integer",
    ),
    # JSON's numbers do not hold 64 bits everywhere, so that both are allowed.
    **{
        each: ["integer", "string"]
        for each in (
            *(_Kind.TYPE_INT64, _Kind.TYPE_SINT64, _Kind.TYPE_SFIXED64),
            *(_Kind.TYPE_UINT64, _Kind.TYPE_FIXED64),
        )
    },
    **dict.fromkeys((_Kind.TYPE_FLOAT, _Kind.TYPE_DOUBLE), "number"),
    _Kind.TYPE_BOOL: "boolean",
}
_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
}


def schema_of(name: str) -> dict[str, Any]:
    """The JSON schema of a message of this installation's contracts.

    Raises:
        InvalidRequest: There is no such message.
    """
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        found = None
    if found is None or not name.startswith("plexus."):
        raise InvalidRequest.field(
            "answer_format.message_type", "must be a message of this installation's contracts"
        )
    definitions: dict[str, Any] = {}
    _define(found, definitions)
    return {"$ref": f"#/$defs/{name}", "$defs": definitions}


def _define(message: Descriptor, definitions: dict[str, Any]) -> None:
    if message.full_name in definitions:
        return
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    definitions[message.full_name] = schema
    schema["properties"] = {each.name: _field(each, definitions) for each in message.fields}


def _field(field: FieldDescriptor, definitions: dict[str, Any]) -> dict[str, Any]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        value = message.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _one(value, definitions)}
    one = _one(field, definitions)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: FieldDescriptor, definitions: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in _KNOWN:
            return _KNOWN[name]
        _define(field.message_type, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if field.enum_type is not None:
        return {"enum": [each.name for each in field.enum_type.values]}
    return {"type": _TYPES.get(field.type, "string")}
