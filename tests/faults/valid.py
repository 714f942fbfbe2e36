"""Small requests that hold every rule of the contract, made from the rules themselves."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Mapping
from typing import Any

import protovalidate
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from proto.tools.descriptors import is_map, real_oneofs
from tests.faults.rpcs import contracts, new_message

_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_DAY = 86_400
# A string of each form that protovalidate knows, and something for an address nobody has.
_FORMS = {
    "email": "nobody@example.com",
    # Written out, since no name is resolved here, and nothing is sent there.
    "uri": "https://1.1.1.1/",
    "uri_ref": "/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "hostname": "example.com",
    "host_and_port": "example.com:80",
    "ip": "192.0.2.1",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


def valid(descriptor: Descriptor, values: Mapping[str, Any] | None = None) -> Message:
    """A message with what its rules ask for and these values; the rest is left out."""
    message = new_message(descriptor)
    values = values or {}
    chosen = {
        oneof.fields[0].name
        for oneof in real_oneofs(descriptor)
        if contracts().options(oneof.full_name).get("[buf.validate.oneof]", {}).get("required")
        and not {field.name for field in oneof.fields} & values.keys()
    }
    for field in descriptor.fields:
        if field.name in values:
            put(message, field, values[field.name])
        elif needs(field) or field.name in chosen:
            put(message, field, sample(field))
    return message


def put(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set a field of whatever kind."""
    if field.is_repeated and not isinstance(value, list | tuple):
        value = [value]
    if is_map(field):
        raise NotImplementedError(f"{field.full_name}: say here how a map is filled")
    if field.is_repeated and field.message_type is not None:
        for each in value:
            getattr(message, field.name).add().CopyFrom(each)
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        target.CopyFrom(value)
    else:
        setattr(message, field.name, value)


def needs(field: FieldDescriptor) -> bool:
    """Whether a message without the field breaks its rules."""
    rules = contracts().rules(field)
    if rules.get("required"):
        return True
    if field.has_presence:
        return False
    if field.is_repeated:
        return bool(int(rules.get("repeated", {}).get("min_items", 0)))
    kind = _kind(rules)
    text = int(kind.get("min_len", kind.get("len", 0))) > 0 or any(kind.get(f) for f in _FORMS)
    text = text or not re.search(str(kind.get("pattern", "")), "")
    number = any(float(kind.get(bound, 0)) > 0 for bound in ("gte", "gt")) if _number(kind) else 0
    return bool(text or number or 0 in kind.get("not_in", ()) or "in" in kind or "const" in kind)


def sample(field: FieldDescriptor) -> Any:
    """A value that the field's rules take."""
    rules = contracts().rules(field)
    if field.is_repeated:
        rules = rules.get("repeated", {})
        count = max(1, int(rules.get("min_items", 1)))
        return [_single(field, rules.get("items", {})) for _ in range(count)]
    return _single(field, rules)


def _single(field: FieldDescriptor, rules: Mapping[str, Any]) -> Any:
    if field.message_type is not None:
        return _nested(field.message_type)
    kind = _kind(rules)
    if "const" in kind or "in" in kind:
        return kind.get("const", kind.get("in", [None])[0])
    if field.enum_type is not None:
        return next(v.number for v in field.enum_type.values if v.number not in _not_in(kind))
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(field, kind)
    return _plain(field, kind)


def _plain(field: FieldDescriptor, kind: Mapping[str, Any]) -> bytes | bool | float:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"x" * max(1, int(kind.get("min_len", kind.get("len", 1))))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    number = float(kind.get("gte", float(kind.get("gt", 0)) + 1))
    return number if field.type in _FLOATS else int(number)


def _nested(descriptor: Descriptor) -> Message:
    message: Any = new_message(descriptor)
    if descriptor.full_name == "google.protobuf.Timestamp":
        message.seconds = int(time.time()) + _DAY
        return message  # type: ignore[no-any-return]
    if descriptor.full_name == "google.protobuf.Duration":
        message.seconds = 1
        return message  # type: ignore[no-any-return]
    return valid(descriptor)


def _text(field: FieldDescriptor, kind: Mapping[str, Any]) -> str:
    for form, text in _FORMS.items():
        if kind.get(form):
            return text
    text = f"{kind.get('prefix', '')}{field.name[:3]}_absent{kind.get('suffix', '')}"
    least = int(kind.get("min_len", kind.get("len", 0)))
    text = text.ljust(least, "x")[: int(kind.get("max_len", kind.get("len", 1 << 20)))]
    likely = (text, text.replace("_", "-"), "1", "")
    return next((each for each in likely if re.search(str(kind.get("pattern", "")), each)), text)


def _kind(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of the type: of `{"string": {"min_len": 1}}` the inner part."""
    return next((value for value in rules.values() if isinstance(value, dict)), {})


def _number(kind: Mapping[str, Any]) -> bool:
    return all(_is_number(kind[bound]) for bound in ("gte", "gt") if bound in kind)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _not_in(kind: Mapping[str, Any]) -> set[int]:
    return {0, *map(int, kind.get("not_in", ()))}


def broken(message: Message) -> list[str]:
    """The rules that a message breaks, by the validator that the product uses."""
    name = message.DESCRIPTOR.full_name
    for file in contracts().files:
        if file.package.startswith("plexus."):
            importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    # The rules are known in the pool of the generated code alone.
    kind = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    found = protovalidate.Validator().collect_violations(
        kind.FromString(message.SerializeToString())
    )
    return [f"{name}: {each.proto}" for each in found]
