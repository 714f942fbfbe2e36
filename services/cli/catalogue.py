"""Every RPC of the contracts, as the descriptor set has them: found by name, listed, described."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from proto.tools.descriptors import OURS, Contracts, Policy, is_map, map_entry, module
from proto.tools.json_schema import Schemas
from services.cli.errors import Failure

DESCRIPTOR_SET = Path(__file__).resolve().parents[2] / "generated" / "plexus.binpb"
# The bounds of a field in words; what is not here is said in its comment.
_RANGES = (
    ("min_len", "max_len", "characters"),
    ("min_items", "max_items", "items"),
    ("min_pairs", "max_pairs", "entries"),
    ("gte", "lte", ""),
)
_BOUNDS = {
    "gt": "more than {}",
    "lt": "less than {}",
    "pattern": "matches {}",
    "const": "only {}",
    "email": "an e-mail address",
    "unique": "none twice",
    "gt_now": "in the future",
}


@dataclass(frozen=True)
class Rpc:
    """One RPC.

    Attributes:
        method: Its descriptor.
        policy: Who may call it, and for how long.
        rest: How REST calls it, such as `GET /v1/agents`; empty where it has no such path.
        comment: What the contract says about it.
    """

    method: MethodDescriptor
    policy: Policy
    rest: str
    comment: str

    @property
    def name(self) -> str:
        """Its short name, such as `agents/GetRun`."""
        return f"{module(self.method.full_name)}/{self.method.name}"

    @property
    def path(self) -> str:
        """Its path over gRPC."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def access(self) -> str:
        """The permission that a caller needs, or `public`, or `internal`."""
        return self.policy.permission or self.policy.access

    @property
    def role(self) -> str:
        """The least role that holds the permission."""
        return self.policy.role.removeprefix("ROLE_").lower()

    @property
    def summary(self) -> str:
        """The first sentence of the comment."""
        text = " ".join(self.comment.split())
        return re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(".:")

    @property
    def aliases(self) -> set[str]:
        """Every name it goes by, in lower case."""
        service = self.method.containing_service
        owners = (module(service.full_name), service.name, service.full_name)
        return {f"{owner}/{self.method.name}".lower() for owner in owners}


class Catalogue:
    """The contracts and their RPCs."""

    def __init__(self, contracts: Contracts) -> None:
        self.contracts = contracts
        self.rpcs = [self._rpc(method) for method in contracts.methods()]

    @classmethod
    def read(cls, path: Path = DESCRIPTOR_SET) -> Catalogue:
        """Read the descriptor set.

        Raises:
            Failure: It was not made yet.
        """
        try:
            return cls(Contracts.read(path))
        except OSError:
            raise Failure(f"{path.name} is not there. Make it with `make generate`.") from None

    @property
    def modules(self) -> list[str]:
        """The modules that have RPCs, in the order of their names."""
        return sorted({module(rpc.method.full_name) for rpc in self.rpcs})

    def find(self, name: str) -> Rpc:
        """The RPC with a name, long or short, in any case: `agents/GetRun`, `getrun`.

        Raises:
            Failure: None has it, or several have.
        """
        wanted = re.sub(r"\.(?=[^./]+$)", "/", name.strip("/")).lower()
        found = [rpc for rpc in self.rpcs if wanted in rpc.aliases]
        found = found or [rpc for rpc in self.rpcs if wanted == rpc.method.name.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            names = " or ".join(rpc.name for rpc in found)
            raise Failure(f"{name} is the name of several RPCs. Say {names}.", exit_code=2)
        raise Failure(f"There is no RPC {name}. {self._suggestion(wanted)}", exit_code=2)

    def table(self) -> list[list[str]]:
        """A row for each RPC: name, REST, permission, role, summary."""
        return [[rpc.name, rpc.rest, rpc.access, rpc.role, rpc.summary] for rpc in self.rpcs]

    def fields(self, message: Descriptor, *, bounds: bool) -> list[list[str]]:
        """A row for each field of a message, nested ones too: path, type, bounds, comment."""
        return [
            [
                path,
                _type(field),
                *([self._bounds(field)] if bounds else []),
                " ".join(self.contracts.comment(field.full_name).split()),
            ]
            for path, field in _fields(message, "", frozenset())
        ]

    def example(self, rpc: Rpc) -> str:
        """A command that calls it with its required fields."""
        schemas = Schemas(self.contracts)
        given = {
            field.name: _placeholder(field)
            for field in rpc.method.input_type.fields
            if schemas.required(field)
        }
        argument = f" --json '{json.dumps(given, ensure_ascii=False)}'" if given else ""
        return f"plexus call {rpc.name}{argument}"

    def _rpc(self, method: MethodDescriptor) -> Rpc:
        bindings = self.contracts.bindings(method)
        return Rpc(
            method=method,
            policy=self.contracts.policy(method) or Policy("", "", "", 60.0),
            rest=f"{bindings[0].verb.upper()} {bindings[0].path}" if bindings else "",
            comment=self.contracts.comment(method.full_name),
        )

    def _suggestion(self, wanted: str) -> str:
        names = {rpc.name.lower(): rpc.name for rpc in self.rpcs}
        bare = {rpc.method.name.lower(): rpc.name for rpc in self.rpcs}
        last = wanted.rpartition("/")[2]
        near = [
            *(names[each] for each in difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)),
            *(bare[each] for each in difflib.get_close_matches(last, bare, n=3, cutoff=0.6)),
        ]
        if not near:
            return "See all of them with `plexus call --list`."
        return f"Did you mean {' or '.join(list(dict.fromkeys(near))[:3])}?"

    def _bounds(self, field: FieldDescriptor) -> str:
        rules = self.contracts.rules(field)
        words = ["required"] if Schemas(self.contracts).required(field) else []
        own = next((each for each in rules.values() if isinstance(each, dict)), {})
        words += [_range(own, *each) for each in _RANGES if own.keys() & set(each[:2])]
        words += [text.format(own[rule]) for rule, text in _BOUNDS.items() if own.get(rule)]
        if field.enum_type is not None:
            refused = _refused_numbers(own)
            names = [value.name for value in field.enum_type.values if value.number not in refused]
            words.append(f"one of {', '.join(names)}")
        return "; ".join(words)


def _fields(
    message: Descriptor, prefix: str, seen: frozenset[str]
) -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field with its path; those of our own messages within follow their field."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        yield path, field
        nested = field.message_type
        ours = nested is not None and nested.full_name.startswith(OURS) and not is_map(field)
        if nested is not None and ours and nested.full_name not in seen:
            inner = f"{path}[]." if field.is_repeated else f"{path}."
            yield from _fields(nested, inner, seen | {nested.full_name})


def _range(rules: dict[str, Any], least: str, most: str, unit: str) -> str:
    low, high = (_number(rules[name]) if name in rules else "" for name in (least, most))
    if low and high:
        words = low if low == high else f"{low} to {high}"
    else:
        words = f"at most {high}" if high else f"at least {low}"
    one = (high or low) == "1"
    return f"{words} {unit.removesuffix('s') if one else unit}".strip()


def _refused_numbers(rules: dict[str, Any]) -> set[int]:
    within = rules.get("items", {}).get("enum", {})
    return {int(number) for number in (*rules.get("not_in", ()), *within.get("not_in", ()))}


def _type(field: FieldDescriptor) -> str:
    if is_map(field):
        entry = map_entry(field)
        return f"map<{_type(entry['key'])}, {_type(entry['value'])}>"
    known = field.message_type or field.enum_type
    name = known.name if known is not None else _SCALARS[field.type]
    return f"{name}[]" if field.is_repeated else name


def _placeholder(field: FieldDescriptor) -> Any:
    if field.is_repeated:
        return [{}] if field.message_type is not None else []
    if field.message_type is not None:
        return {}
    if field.enum_type is not None:
        return field.enum_type.values[-1].name
    return "…" if field.type == FieldDescriptor.TYPE_STRING else 1


def _number(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{int(number):,}" if number.is_integer() else str(number)


_SCALARS = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"),
    )
}
