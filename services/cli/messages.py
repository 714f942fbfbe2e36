"""Messages from and to JSON, strictly: a field that the contract does not know is an error."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.cli.errors import Failure

# Messages with a JSON form of their own, whose keys are not fields.
_WELL_KNOWN = "google.protobuf."


def to_json(
    message: Message,
    pool: descriptor_pool.DescriptorPool | None = None,
    *,
    indent: int | None = None,
) -> str:
    """A message as the gateway prints it over REST: the contract's names, defaults included."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=pool,
        indent=indent,
        ensure_ascii=False,
    )


def read_values(text: str) -> list[Any]:
    """Every JSON value in a text, one after the other.

    Raises:
        Failure: It is not JSON.
    """
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise Failure(
                f"This is not JSON: {error.msg.lower()} at line {error.lineno}, column "
                f"{error.colno}. Quote it for the shell, as in --json '{{\"page_size\": 5}}'.",
                exit_code=2,
            ) from None
        found.append(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


def from_value(value: Any, kind: type[Message], pool: descriptor_pool.DescriptorPool) -> Message:
    """A message from a JSON value.

    Raises:
        Failure: It has a field that the contract does not know, or a value that does not fit.
    """
    descriptor = pool.FindMessageTypeByName(kind.DESCRIPTOR.full_name)
    if not isinstance(value, dict) and not descriptor.full_name.startswith(_WELL_KNOWN):
        raise _misfit(f"A {descriptor.name} is a JSON object, as in {{}}.", kind)
    if unknown := list(_unknown(value, descriptor, "")):
        raise _misfit(f"{kind.DESCRIPTOR.name} has no field {', '.join(unknown)}.", kind)
    try:
        return json_format.ParseDict(value, kind(), descriptor_pool=pool)
    except json_format.ParseError as error:
        raise _misfit(f"{str(error).rstrip('.')}.", kind) from None


def _misfit(sentence: str, kind: type[Message]) -> Failure:
    names = ", ".join(field.name for field in kind.DESCRIPTOR.fields) or "none"
    return Failure(
        f"{sentence} See what it takes with --describe.",
        f"{kind.DESCRIPTOR.name} has the fields: {names}",
        exit_code=2,
    )


def _unknown(value: Any, message: Descriptor, path: str) -> Iterator[str]:
    """The paths of fields that a message does not have, each with what it may have meant."""
    if not isinstance(value, dict) or message.full_name.startswith(_WELL_KNOWN):
        return
    fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
    for name, content in value.items():
        field = fields.get(name)
        if field is None:
            meant = difflib.get_close_matches(name, [each.name for each in message.fields], n=1)
            yield f"`{path}{name}`" + (f" (did you mean `{meant[0]}`?)" if meant else "")
        elif field.message_type is not None:
            yield from _unknown_within(content, field.message_type, f"{path}{name}")


def _unknown_within(content: Any, message: Descriptor, path: str) -> Iterator[str]:
    if message.GetOptions().map_entry:
        kind = message.fields_by_name["value"].message_type
        if kind is not None and isinstance(content, dict):
            for key, each in content.items():
                yield from _unknown(each, kind, f"{path}[{key}].")
    elif isinstance(content, list):
        for index, each in enumerate(content):
            yield from _unknown(each, message, f"{path}[{index}].")
    else:
        yield from _unknown(content, message, f"{path}.")
