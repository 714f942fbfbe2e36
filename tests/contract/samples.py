"""Samples of every message: made from its descriptor, kept in `golden/`, the same every time.

A recorded sample is a promise: what these bytes and this JSON meant, they mean for ever. So a
sample is added and never changed; when a message gains a field, it gains a sample that has it set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from proto.tools.descriptors import Contracts, is_map, map_entry, real_oneofs

GOLDEN: Final = Path(__file__).parent / "golden"
# One sample: {"binary": hex, "json": proto JSON}. By message, within a package's file.
Sample = dict[str, Any]
Golden = dict[str, list[Sample]]

# A message of any type: made-up contents would be of none.
_ANY: Final = "google.protobuf.Any"
_FLOATS: Final = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
# A moment and a length of time with every part set.
_TIMES: Final = {
    "google.protobuf.Timestamp": (1767225600, 123456000),
    "google.protobuf.Duration": (90, 500000000),
}


def load(golden: Path = GOLDEN) -> Golden:
    """Every recorded sample, by the full name of its message."""
    recorded: Golden = {}
    for path in sorted(golden.glob("*.json")):
        recorded.update(json.loads(path.read_text()))
    return recorded


def missing(contracts: Contracts, recorded: Golden) -> Golden:
    """The samples still to be recorded, so that every field is set in some sample."""
    wanted: Golden = {}
    for message in contracts.messages():
        uncovered = {field.name for field in message.fields}
        for sample in recorded.get(message.full_name, []):
            uncovered -= _set_in(contracts, message, sample)
        samples = [] if message.full_name in recorded or uncovered else [_empty()]
        while uncovered:
            sample = make(contracts, message, uncovered)
            samples.append(sample)
            uncovered -= _set_in(contracts, message, sample)
        if samples:
            wanted[message.full_name] = samples
    return wanted


def make(contracts: Contracts, message: Descriptor, prefer: set[str]) -> Sample:
    """A sample with every field set, and of each oneof a member in `prefer` if it has one."""
    value = contracts.message_class(message.full_name)()
    _fill(value, prefer, (message.full_name,))
    return {"binary": encode(value), "json": contracts.as_dict(value)}


def encode(value: Message) -> str:
    """A message's bytes in hex, in the one order that does not vary."""
    return value.SerializeToString(deterministic=True).hex()


def decode(contracts: Contracts, name: str, sample: Sample) -> tuple[Message, Message]:
    """What a sample's bytes mean now, and what its JSON means now.

    Raises:
        DecodeError: The bytes are no such message any more.
        ParseError: The JSON is no such message any more.
    """
    kind = contracts.message_class(name)
    from_json = json_format.ParseDict(sample["json"], kind(), descriptor_pool=contracts.pool)
    return kind.FromString(bytes.fromhex(sample["binary"])), from_json


def _empty() -> Sample:
    return {"binary": "", "json": {}}


def _set_in(contracts: Contracts, message: Descriptor, sample: Sample) -> set[str]:
    value = contracts.message_class(message.full_name).FromString(bytes.fromhex(sample["binary"]))
    return {field.name for field, _ in value.ListFields()}


def _fill(value: Message, prefer: set[str], within: tuple[str, ...]) -> None:
    message = cast(Descriptor, value.DESCRIPTOR)
    if message.full_name in _TIMES:
        seconds, nanos = _TIMES[message.full_name]
        setattr(value, "seconds", seconds)  # noqa: B010 a message known by its descriptor alone
        setattr(value, "nanos", nanos)  # noqa: B010
        return
    left_out = set()
    for oneof in real_oneofs(message):
        names = [field.name for field in oneof.fields]
        chosen = next((name for name in names if name in prefer), names[0])
        left_out |= {*names} - {chosen}
    for field in message.fields:
        # What is in an Any is nobody's contract: `google.api.HttpBody` has some, unused.
        known = field.message_type is None or field.message_type.full_name != _ANY
        if field.name not in left_out and known:
            _set(value, field, within)


def _set(value: Message, field: FieldDescriptor, within: tuple[str, ...]) -> None:
    target = getattr(value, field.name)
    if is_map(field):
        entry = map_entry(field)
        key = _scalar(entry["key"], 0)
        if entry["value"].message_type is None:
            target[key] = _scalar(entry["value"], 0)
        else:
            _fill_nested(target[key], within)
    elif field.is_repeated and field.message_type is not None:
        for _ in range(2):
            _fill_nested(target.add(), within)
    elif field.is_repeated:
        target.extend(_scalar(field, at) for at in range(2))
    elif field.message_type is not None:
        target.SetInParent()
        _fill_nested(target, within)
    else:
        setattr(value, field.name, _scalar(field, 0))


def _fill_nested(value: Message, within: tuple[str, ...]) -> None:
    name = value.DESCRIPTOR.full_name
    # A message within itself stays empty, or there would be no end.
    if name not in within:
        _fill(value, set(), (*within, name))


def _scalar(field: FieldDescriptor, at: int) -> Any:
    """A value that tells the field, and an item's place, by its look."""
    if field.enum_type is not None:
        values = field.enum_type.values
        return values[min(1 + at, len(values) - 1)].number
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type == FieldDescriptor.TYPE_STRING:
        return f"{field.name} {at} ü"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes([0, 255, field.number % 256, at])
    if field.type in _FLOATS:
        return field.number + 0.5 + at
    return field.number * 100 + at
