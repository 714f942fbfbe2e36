"""What every contract here must say, beyond what buf can check.

    python -m proto.tools.policy        exit 1 and say what to mend, one line each

A rule that has to be broken is set aside beside the thing that breaks it, with its reason, in the
comment above it:

    // policy:ignore LIST_IS_PAGED an installation has a handful of models
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from proto.tools.descriptors import (
    OURS,
    Contracts,
    is_map,
    map_entry,
    real_oneofs,
)
from proto.tools.generate import PROTO, GenerateError, descriptor_set

_PERMISSION: Final = re.compile(r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")
_NO_CLASS: Final = "RATE_CLASS_UNSPECIFIED"
_SHAPELESS: Final = tuple(
    f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue")
)
# Rules of a text that leave it no more than a few hundred characters. An e-mail, a URI or a pattern
# may be of any length.
_BOUNDING: Final = (
    "max_len",
    "max_bytes",
    "len",
    "len_bytes",
    "const",
    "in",
    "uuid",
    "tuuid",
    "ulid",
    "hostname",
    "ip",
    "ipv4",
    "ipv6",
    "address",
    "ip_prefix",
    "ipv4_prefix",
    "ipv6_prefix",
    "ip_with_prefixlen",
    "ipv4_with_prefixlen",
    "ipv6_with_prefixlen",
    "host_and_port",
)
_TEXTS: Final = {FieldDescriptor.TYPE_STRING: "string", FieldDescriptor.TYPE_BYTES: "bytes"}


@dataclass(frozen=True, order=True)
class Finding:
    """Something that a contract lacks, and how to mend it."""

    path: str
    line: int
    subject: str
    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"proto/{self.path}:{self.line}: {self.subject}: {self.sentence} [{self.rule}]"


# What a rule yields: the full name of the thing, and the sentence.
_Said = Iterator[tuple[str, str]]


def check(contracts: Contracts) -> list[Finding]:
    """Everything that the contracts lack, in the order of the files; empty when all is well."""
    findings = set()
    for name, rule in RULES.items():
        for subject, sentence in rule(contracts):
            place = contracts.place(subject)
            if name not in place.set_aside:
                findings.add(Finding(place.path, place.line, subject, name, sentence))
    return sorted(findings)


def _has_access(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        policy = contracts.policy(method)
        if policy is None or not policy.access:
            yield (
                method.full_name,
                "nobody may call it; give its (plexus.options.v1.policy) a permission, "
                "or public: true, or internal: true.",
            )


def _has_deadline(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        policy = contracts.policy(method)
        if policy is None or policy.deadline <= 0:
            yield (
                method.full_name,
                "it may run for ever; give its policy a deadline of more than zero, "
                "such as deadline: {seconds: 5}.",
            )


def _has_rate_class(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        policy = contracts.policy(method)
        if policy is None or policy.access == "internal":
            continue
        said = contracts.options(method.full_name)["[plexus.options.v1.policy]"]
        if said.get("rate_class", _NO_CLASS) == _NO_CLASS:
            yield (
                method.full_name,
                "nothing limits how often it is called; give its policy a rate_class, "
                "such as rate_class: RATE_CLASS_READ.",
            )


def _permission_is_named(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        policy = contracts.policy(method)
        if policy and policy.access == "permission" and not _PERMISSION.match(policy.permission):
            yield (
                method.full_name,
                f'the permission "{policy.permission}" is not named <resource>.<verb>; '
                "name it like agents.read.",
            )


def _permission_has_one_role(contracts: Contracts) -> _Said:
    first: dict[str, tuple[str, str]] = {}
    for method in contracts.methods():
        policy = contracts.policy(method)
        if policy is None:
            continue
        if policy.access != "permission":
            if policy.role:
                yield method.full_name, "a role without a permission does nothing; remove the role."
            continue
        if not policy.role:
            yield (
                method.full_name,
                f"no role holds {policy.permission}; set role to the least one that does.",
            )
            continue
        role, where = first.setdefault(policy.permission, (policy.role, method.full_name))
        if role != policy.role:
            yield (
                method.full_name,
                f"{policy.permission} is held from {policy.role} here and from {role} at {where}; "
                "say the same role at both, or name another permission.",
            )


def _internal_has_no_route(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        policy = contracts.policy(method)
        if policy and policy.access == "internal" and contracts.bindings(method):
            yield (
                method.full_name,
                "it is internal and has a route from outside; remove its google.api.http.",
            )


def _verb_fits_effects(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        verbs = {binding.verb for binding in contracts.bindings(method)}
        level = contracts.options(method.full_name).get("idempotency_level")
        if "get" in verbs and level != "NO_SIDE_EFFECTS":
            yield (
                method.full_name,
                "whatever answers GET may be repeated and cached by anyone between; "
                "say option idempotency_level = NO_SIDE_EFFECTS, or bind another verb.",
            )
        if verbs and "get" not in verbs and level == "NO_SIDE_EFFECTS":
            yield (
                method.full_name,
                "it has no side effects and no GET; bind get, "
                "or set this rule aside with the reason in the comment.",
            )


def _list_is_paged(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        if not method.name.startswith("List"):
            continue
        asked, answered = method.input_type.fields_by_name, method.output_type.fields_by_name
        size = asked.get("page_size")
        bounds = contracts.rules(size).get("int32", {}) if size is not None else {}
        if "gte" not in bounds or "lte" not in bounds:
            yield (
                method.full_name,
                f"{method.input_type.name} needs an int32 page_size with gte and lte, "
                "so that no page is too large to send.",
            )
        if "page_token" not in asked or "next_page_token" not in answered:
            yield (
                method.full_name,
                f"{method.input_type.name} needs page_token and {method.output_type.name} "
                "next_page_token, so that a caller gets past the first page.",
            )


def _shape_is_known(contracts: Contracts) -> _Said:
    for message in contracts.messages():
        for field in message.fields:
            value = map_entry(field)["value"] if is_map(field) else field
            if value.message_type is not None and value.message_type.full_name in _SHAPELESS:
                yield (
                    field.full_name,
                    f"{value.message_type.full_name} hides its shape from every check; "
                    "spell the shape out as a message.",
                )


def _requested(contracts: Contracts) -> list[Descriptor]:
    """Our messages that a caller can send, as a request or within one."""
    found: dict[str, Descriptor] = {}
    waiting = [method.input_type for method in contracts.methods()]
    while waiting:
        message = waiting.pop()
        if message.full_name in found or not message.full_name.startswith(OURS):
            continue
        found[message.full_name] = message
        for field in message.fields:
            value = map_entry(field)["value"] if is_map(field) else field
            if value.message_type is not None:
                waiting.append(value.message_type)
    return list(found.values())


def _input_is_bounded(contracts: Contracts) -> _Said:
    for message in _requested(contracts):
        for field in message.fields:
            for sentence in _unbounded(field, contracts.rules(field)):
                yield field.full_name, sentence


def _unbounded(field: FieldDescriptor, rules: dict[str, Any]) -> Iterator[str]:
    """What of a field may grow without end: the field itself, its items, its keys, its values."""
    if is_map(field):
        own = rules.get("map", {})
        if "max_pairs" not in own:
            yield "the map may have any number of pairs; give it map.max_pairs."
        entry = map_entry(field)
        for part, plural in (("key", "keys"), ("value", "values")):
            if not _text_is_bounded(entry[part], own.get(plural, {})):
                yield f"a {part} of the map may have any length; give it map.{plural}…max_len."
    elif field.is_repeated:
        own = rules.get("repeated", {})
        if "max_items" not in own:
            yield "the list may have any length; give it repeated.max_items."
        if not _text_is_bounded(field, own.get("items", {})):
            kind = _TEXTS[field.type]
            yield f"an item may have any length; give it repeated.items.{kind}.max_len."
    elif not _text_is_bounded(field, rules):
        yield f"it may have any length; give it {_TEXTS[field.type]}.max_len."


def _text_is_bounded(field: FieldDescriptor, rules: dict[str, Any]) -> bool:
    if field.type not in _TEXTS:
        return True
    own = rules.get(_TEXTS[field.type], {})
    return any(own.get(rule) not in (None, False) for rule in _BOUNDING)


def _input_enum_is_defined(contracts: Contracts) -> _Said:
    for message in _requested(contracts):
        for field in message.fields:
            rules = contracts.rules(field)
            value = field
            if is_map(field):
                value, rules = map_entry(field)["value"], rules.get("map", {}).get("values", {})
            elif field.is_repeated:
                rules = rules.get("repeated", {}).get("items", {})
            own = rules.get("enum", {})
            if value.enum_type is not None and not (
                own.get("defined_only") or "in" in own or "const" in own
            ):
                yield (
                    field.full_name,
                    "any number passes for this enum; give it enum.defined_only = true.",
                )


def _input_oneof_is_decided(contracts: Contracts) -> _Said:
    for message in _requested(contracts):
        for oneof in real_oneofs(message):
            name = f"{message.full_name}.{oneof.name}"
            if not contracts.options(name).get("[buf.validate.oneof]", {}).get("required"):
                yield (
                    name,
                    "a request may set none of its members; say "
                    "option (buf.validate.oneof).required = true, or set this rule aside with "
                    "what happens then.",
                )


def _path_names_fields(contracts: Contracts) -> _Said:
    for method in contracts.methods():
        for binding in contracts.bindings(method):
            for path in (*binding.path_fields, *({binding.body} - {"", "*"})):
                if not _names_field(method, path):
                    yield (
                        method.full_name,
                        f"{binding.path} speaks of {path}, which {method.input_type.name} does not "
                        "have; name one of its fields.",
                    )


def _names_field(method: MethodDescriptor, path: str) -> bool:
    message: Descriptor | None = method.input_type
    for name in path.split("."):
        if message is None or name not in message.fields_by_name:
            return False
        message = message.fields_by_name[name].message_type
    return True


RULES: Final[dict[str, Callable[[Contracts], _Said]]] = {
    "HAS_ACCESS": _has_access,
    "HAS_DEADLINE": _has_deadline,
    "HAS_RATE_CLASS": _has_rate_class,
    "PERMISSION_IS_NAMED": _permission_is_named,
    "PERMISSION_HAS_ONE_ROLE": _permission_has_one_role,
    "INTERNAL_HAS_NO_ROUTE": _internal_has_no_route,
    "VERB_FITS_EFFECTS": _verb_fits_effects,
    "PATH_NAMES_FIELDS": _path_names_fields,
    "LIST_IS_PAGED": _list_is_paged,
    "SHAPE_IS_KNOWN": _shape_is_known,
    "INPUT_IS_BOUNDED": _input_is_bounded,
    "INPUT_ENUM_IS_DEFINED": _input_enum_is_defined,
    "INPUT_ONEOF_IS_DECIDED": _input_oneof_is_decided,
}


def main() -> int:
    """The command."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "contracts.binpb"
        try:
            descriptor_set(PROTO, target)
        except GenerateError as error:
            print(f"a contract does not compile:\n{error}", file=sys.stderr)
            return 1
        findings = check(Contracts.read(target))
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
