"""Messages as JSON Schema (2020-12): proto JSON with the contract's field names and its rules.

What JSON Schema cannot say (a time in the future, a bound on a number that travels as text) is said
in the description, since a rule that a caller does not see is found out by being refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from proto.tools.descriptors import Contracts, is_map, map_entry, real_oneofs, zero_name

Schema = dict[str, Any]
PREFIX: Final = "#/components/schemas/"

_INT64: Final[Schema] = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Final[Schema] = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_INT32: Final[Schema] = {"type": "integer", "format": "int32"}
_UINT32: Final[Schema] = {"type": "integer", "format": "uint32", "minimum": 0}
_SCALARS: Final[dict[int, Schema]] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_ANY: Final[Schema] = {
    "type": "object",
    "properties": {"@type": {"type": "string"}},
    "required": ["@type"],
}
# Messages with a JSON form of their own, as proto JSON defines it.
WELL_KNOWN: Final[dict[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Any": _ANY,
    "google.protobuf.DoubleValue": {"type": ["number", "null"]},
    "google.protobuf.FloatValue": {"type": ["number", "null"]},
    "google.protobuf.Int64Value": {"type": ["string", "null"], "format": "int64"},
    "google.protobuf.UInt64Value": {"type": ["string", "null"], "format": "uint64"},
    "google.protobuf.Int32Value": {"type": ["integer", "null"], "format": "int32"},
    "google.protobuf.UInt32Value": {"type": ["integer", "null"], "format": "uint32"},
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.BytesValue": {"type": ["string", "null"], "contentEncoding": "base64"},
}

# Rules that are a JSON Schema keyword under another name.
_KEYWORDS: Final = {
    "min_len": "minLength",
    "max_len": "maxLength",
    "pattern": "pattern",
    "min_items": "minItems",
    "max_items": "maxItems",
    "unique": "uniqueItems",
    "min_pairs": "minProperties",
    "max_pairs": "maxProperties",
    "gt": "exclusiveMinimum",
    "gte": "minimum",
    "lt": "exclusiveMaximum",
    "lte": "maximum",
    "const": "const",
    "in": "enum",
}
_FORMATS: Final = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
# Forms that an empty text does not have; an empty URI reference is one.
_NEVER_EMPTY: Final = (
    *(form for form in _FORMATS if form != "uri_ref"),
    *("ip", "tuuid", "ulid", "address", "host_and_port", "prefix", "suffix", "contains"),
)
_COUNTS: Final = ("min_len", "max_len", "min_items", "max_items", "min_pairs", "max_pairs")
_SAID: Final = {
    "gt": "More than {}.",
    "gte": "At least {}.",
    "lt": "Less than {}.",
    "lte": "At most {}.",
    "gt_now": "In the future.",
    "lt_now": "In the past.",
    "within": "Within {} of now.",
    "ip": "An IP address.",
    "max_bytes": "At most {} bytes.",
}
_BOUNDED_BY_WORDS: Final = ("int64", "timestamp", "duration", "fixed64")


class Schemas:
    """The schemas of messages and enums, collected as they are referred to."""

    def __init__(self, contracts: Contracts) -> None:
        """Start with no component."""
        self._contracts = contracts
        self.components: dict[str, Schema] = {}

    def message(self, message: Descriptor) -> Schema:
        """A reference to a message, or its own form where proto JSON gives it one."""
        if message.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[message.full_name])
        return self._refer(message.full_name, lambda: self.fields(message, message.fields))

    def enum(self, enum: EnumDescriptor) -> Schema:
        """A reference to an enum, whose values travel by name."""
        return self._refer(enum.full_name, lambda: self._enum(enum))

    def fields(self, message: Descriptor, fields: Iterable[FieldDescriptor]) -> Schema:
        """A message, or what a path leaves of it for the body."""
        fields = list(fields)
        schema: Schema = {"type": "object"}
        if comment := self._contracts.comment(message.full_name):
            schema["description"] = comment
        schema["properties"] = {field.name: self.field(field) for field in fields}
        if required := [field.name for field in fields if self.required(field)]:
            schema["required"] = required
        names = {field.name for field in fields}
        oneofs = [
            self._oneof(oneof.full_name, [each.name for each in oneof.fields])
            for oneof in real_oneofs(message)
            if names.issuperset(each.name for each in oneof.fields)
        ]
        if len(oneofs) == 1:
            schema.update(oneofs[0])
        elif oneofs:
            schema["allOf"] = oneofs
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """What a field may hold, with its comment and its rules."""
        rules = self._contracts.rules(field)
        options = self._contracts.options(field.full_name)
        if is_map(field):
            schema = self._map(field, rules.get("map", {}))
        elif field.is_repeated:
            own = rules.get("repeated", {})
            items = self._one(field, own.get("items", {}))
            schema = {"type": "array", "items": items, **_constraints(own)}
        else:
            schema = self._one(field, rules)
        words = [self._contracts.comment(field.full_name), schema.pop("description", "")]
        if description := "\n".join(filter(None, words)):
            schema["description"] = description
        if options.get("[plexus.options.v1.sensitive]"):
            schema["x-plexus-sensitive"] = True
        return schema

    def required(self, field: FieldDescriptor) -> bool:
        """Whether a message without the field is refused.

        A field that cannot tell "absent" from "zero" is required when its rules refuse the zero.
        """
        rules = self._contracts.rules(field)
        if rules.get("required"):
            return True
        if field.has_presence or rules.get("ignore") == "IGNORE_IF_ZERO_VALUE":
            return False
        own = next((value for value in rules.values() if isinstance(value, dict)), {})
        return _refuses_zero(own)

    def _refer(self, name: str, make: Callable[[], Schema]) -> Schema:
        if name not in self.components:
            self.components[name] = {}  # holds the place, since a message may hold itself
            self.components[name] = make()
        return {"$ref": f"{PREFIX}{name}"}

    def _enum(self, enum: EnumDescriptor) -> Schema:
        comment = self._contracts.comment
        values = [
            f"- `{value.name}`: {' '.join(comment(f'{enum.full_name}.{value.name}').split())}"
            for value in enum.values
        ]
        return {
            "type": "string",
            "enum": [value.name for value in enum.values],
            "description": "\n".join((comment(enum.full_name), "", *values)),
        }

    def _oneof(self, name: str, members: list[str]) -> Schema:
        """At most one member, or exactly one where the contract says that it is required."""
        ways: list[Schema] = [{"required": [member]} for member in members]
        if not self._contracts.options(name).get("[buf.validate.oneof]", {}).get("required"):
            ways.append({"not": {"anyOf": list(ways)}})
        return {"oneOf": ways, "x-plexus-oneof": {name.rpartition(".")[2]: members}}

    def _one(self, field: FieldDescriptor, rules: dict[str, Any]) -> Schema:
        """A single value: the field's, an item's, a key's."""
        kind, own = next(
            ((kind, own) for kind, own in rules.items() if isinstance(own, dict)), ("", {})
        )
        if field.enum_type is not None:
            return {**self.enum(field.enum_type), **_enum_constraints(field.enum_type, own)}
        if field.message_type is not None:
            schema = self.message(field.message_type)
        else:
            schema = dict(_SCALARS[field.type])
        if kind == "bytes":
            return {**schema, **_base64_constraints(own)}
        if any(word in kind for word in _BOUNDED_BY_WORDS):
            return schema | _said(own, _SAID)
        return schema | _constraints(own) | _said(own, ("ip", "max_bytes"))

    def _map(self, field: FieldDescriptor, rules: dict[str, Any]) -> Schema:
        entry = map_entry(field)
        schema = {
            "type": "object",
            "additionalProperties": self._one(entry["value"], rules.get("values", {})),
            **_constraints(rules),
        }
        # Keys are text in JSON whatever they are in the contract.
        if keys := _constraints(rules.get("keys", {}).get("string", {})):
            schema["propertyNames"] = keys
        return schema


def _constraints(rules: dict[str, Any]) -> Schema:
    schema: Schema = {}
    for rule, value in rules.items():
        if rule in _KEYWORDS:
            schema[_KEYWORDS[rule]] = int(value) if rule in _COUNTS else value
        elif rule in _FORMATS and value:
            schema["format"] = _FORMATS[rule]
    if "len" in rules:
        schema["minLength"] = schema["maxLength"] = int(rules["len"])
    if "not_in" in rules:
        schema["not"] = {"enum": rules["not_in"]}
    if "prefix" in rules:
        schema.setdefault("pattern", f"^{re.escape(rules['prefix'])}")
    return schema


def _enum_constraints(enum: EnumDescriptor, rules: dict[str, Any]) -> Schema:
    def names(numbers: Iterable[int]) -> list[str]:
        return [enum.values_by_number[n].name for n in numbers if n in enum.values_by_number]

    schema: Schema = {}
    if "in" in rules:
        schema["enum"] = names(rules["in"])
    if "not_in" in rules:
        schema["not"] = {"enum": names(rules["not_in"])}
    if "const" in rules:
        schema["const"] = names([rules["const"]])[0] if rules["const"] else zero_name(enum)
    return schema


def _base64_constraints(rules: dict[str, Any]) -> Schema:
    """Bounds on bytes as bounds on their base64 text, with padding or without."""
    schema: Schema = {}
    if least := int(rules.get("min_len", rules.get("len", 0))):
        schema["minLength"] = -(-4 * least // 3)
    if most := int(rules.get("max_len", rules.get("len", 0))):
        schema["maxLength"] = 4 * -(-most // 3)
    return schema


def _said(rules: dict[str, Any], wanted: Iterable[str]) -> Schema:
    words = [_SAID[rule].format(rules[rule]) for rule in wanted if rule in rules]
    return {"description": " ".join(words)} if words else {}


def _refuses_zero(rules: dict[str, Any]) -> bool:
    if any(rules.get(rule) and float(rules[rule]) > 0 for rule in ("min_len", "len", "min_bytes")):
        return True
    if any(int(rules.get(rule, 0)) > 0 for rule in ("min_items", "min_pairs")):
        return True
    if any(rules.get(form) for form in _NEVER_EMPTY):
        return True
    if "pattern" in rules and not _matches_nothing(rules["pattern"]):
        return True
    number = _number
    return (
        number(rules.get("gte"), 0) > 0
        or number(rules.get("gt"), -1) >= 0
        or number(rules.get("lte"), 0) < 0
        or number(rules.get("lt"), 1) <= 0
        or bool(rules.get("const"))
        or ("in" in rules and not any(_zero(value) for value in rules["in"]))
        or any(_zero(value) for value in rules.get("not_in", ()))
    )


def _matches_nothing(pattern: str) -> bool:
    """Whether an empty text fits; a pattern in a dialect other than Python's is taken to fit."""
    try:
        return re.search(pattern, "") is not None
    except re.error:
        return True


def _number(value: Any, default: float) -> float:
    """A bound as a number; times and lengths of time have presence and never get here."""
    return default if value is None else float(value)


def _zero(value: object) -> bool:
    return value in (0, "", "0", False)
