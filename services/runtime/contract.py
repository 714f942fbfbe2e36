"""What the contracts declare about each RPC, read from the descriptors at start-up."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from google.protobuf import descriptor_pb2, message
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from plexus.options.v1 import options_pb2

REDACTED = "[redacted]"


class ContractError(Exception):
    """An RPC without a permission or a deadline, or two that contradict each other."""


class Access(Enum):
    """Who may call an RPC."""

    PERMISSION = "permission"
    PUBLIC = "public"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC and its policy.

    Attributes:
        name: Its path in gRPC, such as `/plexus.agents.v1.AgentsService/GetRun`.
        access: Who may call it.
        permission: What the caller must hold; empty unless `access` is PERMISSION.
        role: The least role that holds the permission.
        deadline: Seconds.
        retryable: Whether a call that may have run may be made again.
    """

    name: str
    access: Access
    permission: str
    role: int
    deadline: float
    retryable: bool


def read_method(descriptor: MethodDescriptor) -> Method:
    """The policy of one RPC.

    Raises:
        ContractError: It declares no access or no deadline.
    """
    service = descriptor.containing_service
    name = f"/{service.full_name}/{descriptor.name}"
    options = descriptor.GetOptions()
    policy = options.Extensions[options_pb2.policy]
    access = policy.WhichOneof("access")
    if access is None or not (policy.permission or policy.public or policy.internal):
        raise ContractError(f"{name} declares no permission: add one to its policy option")
    if access == "permission" and not policy.role:
        raise ContractError(f"{name} does not say which role holds {policy.permission}")
    deadline = policy.deadline.seconds + policy.deadline.nanos / 1e9
    if deadline <= 0:
        raise ContractError(f"{name} declares no deadline: add one to its policy option")
    return Method(
        name=name,
        access=Access(access),
        permission=policy.permission,
        role=policy.role,
        deadline=deadline,
        retryable=options.idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
    )


def read_methods(files: Iterable[FileDescriptor]) -> dict[str, Method]:
    """The policies of every RPC in some files, by the RPC's path.

    Raises:
        ContractError: One is missing, or one permission has two roles.
    """
    methods: dict[str, Method] = {}
    roles: dict[str, int] = {}
    for file in files:
        for service in file.services_by_name.values():
            for descriptor in service.methods:
                method = read_method(descriptor)
                if (
                    method.permission
                    and roles.setdefault(method.permission, method.role) != method.role
                ):
                    raise ContractError(f"{method.permission} has two roles; see {method.name}")
                methods[method.name] = method
    return methods


def module_methods(module: str) -> dict[str, Method]:
    """The policies of a module's RPCs, found by the name that runs through the house.

    Raises:
        ContractError: A policy is missing, or one permission has two roles.
    """
    name = f"plexus.{module}.v1.{module}_service_pb2"
    return read_methods([importlib.import_module(name).DESCRIPTOR])


def redact(value: message.Message) -> Mapping[str, object]:
    """A message as a mapping for logs, with every `sensitive` field replaced."""
    return dict(_redacted(value))


def _redacted(value: message.Message) -> Iterator[tuple[str, object]]:
    for field, content in value.ListFields():
        if field.GetOptions().Extensions[options_pb2.sensitive]:
            yield field.name, REDACTED
        elif field.message_type is None or field.message_type.GetOptions().map_entry:
            yield (
                field.name,
                content if isinstance(content, str | int | float | bool) else str(content),
            )
        elif isinstance(content, message.Message):
            yield field.name, redact(content)
        else:
            yield field.name, [redact(each) for each in content]
