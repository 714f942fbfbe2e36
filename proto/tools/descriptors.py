"""The contracts as the tools read them: descriptors, their options as plain data, their comments.

Everything comes out of the descriptor set itself and nothing out of the generated stubs, so that a
set can be read before its stubs exist, and an old release's set beside today's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
    ServiceDescriptor,
)
from google.protobuf.message import Message

OURS: Final = "plexus."
# Remarks to the linters stand in comments and are no part of what a caller reads.
_REMARK = re.compile(r"^(buf:lint:ignore|policy:ignore)\s+(\w+)\s*(.*)$")
_VERBS: Final = ("get", "put", "post", "delete", "patch")
_PATH_FIELD = re.compile(r"\{([^}=]+)(?:=[^}]*)?\}")


@dataclass(frozen=True)
class Place:
    """Where something is declared, and the comment above it."""

    path: str
    line: int
    comment: str
    # Policy rules that the comment sets aside, each with its reason.
    set_aside: dict[str, str]


@dataclass(frozen=True)
class Policy:
    """`plexus.options.v1.policy` of one RPC."""

    access: str
    permission: str
    role: str
    deadline: float


@dataclass(frozen=True)
class Binding:
    """One way to call an RPC over REST."""

    verb: str
    path: str
    body: str
    response_body: str

    @property
    def path_fields(self) -> list[str]:
        """The request's fields that the path holds, dotted where nested."""
        return _PATH_FIELD.findall(self.path)

    @property
    def template(self) -> str:
        """The path with bare names: `{name=agents/*}` reads `{name}`."""
        return _PATH_FIELD.sub(r"{\1}", self.path)


class Contracts:
    """A descriptor set, opened in a pool of its own."""

    def __init__(self, serialized: bytes) -> None:
        """Open a set that was compiled with its imports and its comments."""
        self.pool = descriptor_pool.DescriptorPool()
        self.files = descriptor_pb2.FileDescriptorSet.FromString(serialized).file
        for file in self.files:
            self.pool.AddSerializedFile(file.SerializeToString())

    @classmethod
    def read(cls, path: Path) -> Contracts:
        """Open the set in a file."""
        return cls(path.read_bytes())

    @cached_property
    def _declared(self) -> dict[str, tuple[Message, Place]]:
        """Every declaration with its options, by full name."""
        declared = {}
        for file in self.files:
            places = {
                tuple(location.path): (location.span[0] + 1, location.leading_comments)
                for location in file.source_code_info.location
            }
            for name, node, path in _walk(file):
                line, comment = places.get(path, (0, ""))
                declared[name] = (node.options, _place(file.name, line, comment))
        return declared

    def place(self, name: str) -> Place:
        """Where the declaration with this full name stands."""
        return self._declared[name][1]

    def comment(self, name: str) -> str:
        """The comment above the declaration with this full name."""
        return self._declared[name][1].comment

    def options(self, name: str) -> dict[str, Any]:
        """The options of a declaration in proto JSON; an extension's key is `[its.full.name]`."""
        options = self._declared[name][0]
        # Parsed anew in this pool, since only here are the extensions known.
        known = self.message_class(options.DESCRIPTOR.full_name)
        return self.as_dict(known.FromString(options.SerializeToString()))

    def as_dict(self, message: Message) -> dict[str, Any]:
        """A message in proto JSON with its field names as the contract spells them."""
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=self.pool
        )

    def message_class(self, name: str) -> type[Message]:
        """The class of a message, by full name."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def services(self) -> list[ServiceDescriptor]:
        """Our services, by name."""
        return [
            self.pool.FindServiceByName(f"{file.package}.{service.name}")
            for file in sorted(self.files, key=lambda file: file.name)
            for service in file.service
            if file.package.startswith(OURS)
        ]

    def methods(self) -> Iterator[MethodDescriptor]:
        """Our RPCs, service by service."""
        for service in self.services():
            yield from service.methods

    def messages(self) -> list[Descriptor]:
        """Our messages, nested ones included, map entries left out; by full name."""
        found = [
            self.pool.FindMessageTypeByName(name)
            for file in self.files
            if file.package.startswith(OURS)
            for name, node, _ in _walk(file)
            if isinstance(node, descriptor_pb2.DescriptorProto) and not node.options.map_entry
        ]
        return sorted(found, key=lambda message: message.full_name)

    def package(self, name: str) -> str:
        """The package of the message with this full name."""
        return str(self.pool.FindMessageTypeByName(name).file.package)

    def policy(self, method: MethodDescriptor) -> Policy | None:
        """Who may call, and for how long; None where the contract does not say."""
        found = self.options(method.full_name).get("[plexus.options.v1.policy]")
        if found is None:
            return None
        access = next((way for way in ("permission", "public", "internal") if found.get(way)), "")
        return Policy(
            access=access,
            permission=found.get("permission", ""),
            role=found.get("role", ""),
            deadline=float(found.get("deadline", "0s").rstrip("s")),
        )

    def bindings(self, method: MethodDescriptor) -> list[Binding]:
        """Every way to call the RPC over REST, the first one first."""
        rule = self.options(method.full_name).get("[google.api.http]")
        if rule is None:
            return []
        return [_binding(each) for each in (rule, *rule.get("additional_bindings", ()))]

    def rules(self, field: FieldDescriptor) -> dict[str, Any]:
        """The field's `buf.validate.field`; empty where its rules are ignored."""
        rules: dict[str, Any] = self.options(field.full_name).get("[buf.validate.field]", {})
        return {} if rules.get("ignore") == "IGNORE_ALWAYS" else rules


def module(name: str) -> str:
    """The module that a full name belongs to: `plexus.agents.v1.Run` is of `agents`."""
    return name.split(".")[1]


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map, which a descriptor shows as a list of entries."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def map_entry(field: FieldDescriptor) -> dict[str, FieldDescriptor]:
    """The `key` and the `value` of a map."""
    assert field.message_type is not None, f"{field.full_name} is no map"
    return {name: field.message_type.fields_by_name[name] for name in ("key", "value")}


def real_oneofs(message: Descriptor) -> list[OneofDescriptor]:
    """The oneofs that the contract spells out; `optional` makes hidden ones of a single field."""
    return [
        oneof for oneof in message.oneofs if len(oneof.fields) > 1 or not oneof.name.startswith("_")
    ]


def zero_name(enum: EnumDescriptor) -> str:
    """The name of an enum's zero."""
    return str(enum.values_by_number[0].name)


def _place(path: str, line: int, comment: str) -> Place:
    lines = [text.removeprefix(" ").rstrip() for text in comment.rstrip("\n").split("\n")]
    remarks = [match for text in lines if (match := _REMARK.match(text))]
    return Place(
        path=path,
        line=line,
        comment="\n".join(text for text in lines if not _REMARK.match(text)).strip("\n"),
        set_aside={
            remark[2]: remark[3] for remark in remarks if remark[1] == "policy:ignore" and remark[3]
        },
    )


def _binding(rule: dict[str, Any]) -> Binding:
    custom = rule.get("custom", {})
    verb = next((verb for verb in _VERBS if verb in rule), custom.get("kind", "").lower())
    return Binding(
        verb=verb,
        path=rule.get(verb) or custom.get("path", ""),
        body=rule.get("body", ""),
        response_body=rule.get("response_body", ""),
    )


# A declaration: its full name, its descriptor, its path in the file's source information.
_Node = tuple[str, Any, tuple[int, ...]]


def _walk(file: descriptor_pb2.FileDescriptorProto) -> Iterator[_Node]:
    for index, message in enumerate(file.message_type):
        yield from _walk_message(message, f"{file.package}.{message.name}", (4, index))
    for index, enum in enumerate(file.enum_type):
        yield from _walk_enum(enum, f"{file.package}.{enum.name}", (5, index))
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield name, service, (6, index)
        for at, method in enumerate(service.method):
            yield f"{name}.{method.name}", method, (6, index, 2, at)


def _walk_message(
    message: descriptor_pb2.DescriptorProto, name: str, path: tuple[int, ...]
) -> Iterator[_Node]:
    yield name, message, path
    for at, field in enumerate(message.field):
        yield f"{name}.{field.name}", field, (*path, 2, at)
    for at, oneof in enumerate(message.oneof_decl):
        yield f"{name}.{oneof.name}", oneof, (*path, 8, at)
    for at, nested in enumerate(message.nested_type):
        yield from _walk_message(nested, f"{name}.{nested.name}", (*path, 3, at))
    for at, enum in enumerate(message.enum_type):
        yield from _walk_enum(enum, f"{name}.{enum.name}", (*path, 4, at))


def _walk_enum(
    enum: descriptor_pb2.EnumDescriptorProto, name: str, path: tuple[int, ...]
) -> Iterator[_Node]:
    yield name, enum, path
    for at, value in enumerate(enum.value):
        yield f"{name}.{value.name}", value, (*path, 2, at)
