"""What the contracts declare about each RPC, read from the descriptors at start-up."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from google.protobuf import descriptor_pb2, message
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from plexus.options.v1 import options_pb2

REDACTED = "[redacted]"


class ContractError(Exception):
    """An RPC without a permission or a deadline, or two that contradict each other."""


class RateClass(Enum):
    """Which limit of the gateway the calls of an RPC count against."""

    NONE = options_pb2.RATE_CLASS_UNSPECIFIED
    READ = options_pb2.RATE_CLASS_READ
    WRITE = options_pb2.RATE_CLASS_WRITE
    GENERATE = options_pb2.RATE_CLASS_GENERATE
    LOGIN = options_pb2.RATE_CLASS_LOGIN


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
        rate_class: Which limit its calls count against; NONE for internal ones alone.
        cost: How many calls one counts as.
    """

    name: str
    access: Access
    permission: str
    role: int
    deadline: float
    retryable: bool
    rate_class: RateClass
    cost: int


def read_method(descriptor: MethodDescriptor) -> Method:
    """The policy of one RPC.

    Raises:
        ContractError: It declares no access, no deadline or, with a way in, no rate class.
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
    if not (policy.internal or policy.rate_class):
        raise ContractError(f"{name} declares no rate class: add one to its policy option")
    return Method(
        name=name,
        access=Access(access),
        permission=policy.permission,
        role=policy.role,
        deadline=deadline,
        retryable=options.idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
        rate_class=RateClass(policy.rate_class),
        cost=policy.cost or 1,
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
    """The policies of a module's RPCs: of every service of its package.

    Raises:
        ContractError: A policy is missing, or one permission has two roles.
    """
    package = importlib.import_module(f"plexus.{module}.v1")
    names = sorted(each.name for each in pkgutil.iter_modules(package.__path__))
    services = [name for name in names if name.endswith("_service_pb2")]
    return read_methods(
        [importlib.import_module(f"{package.__name__}.{name}").DESCRIPTOR for name in services]
    )


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
