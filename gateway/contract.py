"""What the descriptor set says about each RPC that the gateway must know."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from plexus.options.v1 import options_pb2

from gateway.errors import GatewayError

_ROOT = "plexus"
_HTTP_BODY = ".google.api.HttpBody"
_FOREIGN = "interop"
_CLASS_PREFIX = "RATE_CLASS_"


@dataclass(frozen=True)
class Binding:
    """One REST path of an RPC: the HTTP method in capitals, and the template of the path."""

    method: str
    template: str
    # The request's field that the body is, `*` for the whole request, empty for none.
    body: str = ""
    # Whether that field is bytes as they are (google.api.HttpBody), and not JSON.
    raw: bool = False


@dataclass(frozen=True)
class Rpc:
    """One RPC as its contract declares it."""

    service: str
    name: str
    deadline: float
    public: bool
    internal: bool
    # Whether a call may be repeated although it may have run.
    repeatable: bool
    client_streaming: bool
    server_streaming: bool
    bindings: tuple[Binding, ...]
    # The name of its RateClass without the prefix, and how many calls one counts as.
    rate_class: str = ""
    cost: int = 1
    # Whether a body is a format of its own (google.api.HttpBody), and not JSON of the contract.
    opaque: bool = False

    @property
    def path(self) -> str:
        """The path of the RPC over gRPC."""
        return f"/{self.service}/{self.name}"

    @property
    def module(self) -> str:
        """The module that serves it: `agents` for plexus.agents.v1.AgentsService."""
        return self.service.split(".")[1]

    @property
    def bounded_apart(self) -> bool:
        """Whether a module of ours bounds what its streams bring, and not the gateway alone."""
        return self.service.startswith(f"{_ROOT}.")

    @property
    def foreign(self) -> bool:
        """Whether it is of a protocol of others, and not merely about bytes as they are."""
        return self.opaque and self.module == _FOREIGN

    @property
    def streaming(self) -> bool:
        """Whether either side streams."""
        return self.client_streaming or self.server_streaming


def parse(descriptor_set: bytes) -> descriptor_pb2.FileDescriptorSet:
    """The descriptor set with its options resolved.

    Raises:
        GatewayError: The bytes are not a descriptor set.
    """
    try:
        return descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    except Exception as error:  # protobuf has no class of its own for it in every implementation
        raise GatewayError("the descriptor set cannot be read: run `make generate`") from error


def rpcs(files: descriptor_pb2.FileDescriptorSet) -> list[Rpc]:
    """Every RPC of the mesh, the internal ones too, in the order of the files.

    Raises:
        GatewayError: An RPC has no policy, no deadline or no rate class.
    """
    raw = {
        (f".{file.package}.{message.name}", field.name)
        for file in files.file
        for message in file.message_type
        for field in message.field
        if field.type_name == _HTTP_BODY
    }
    return [
        _rpc(f"{file.package}.{service.name}", method, raw)
        for file in files.file
        if file.package.split(".")[0] == _ROOT
        for service in file.service
        for method in service.method
    ]


def for_transcoder(files: descriptor_pb2.FileDescriptorSet) -> bytes:
    """A descriptor set without internal RPCs and comments: all that Envoy may know."""
    pruned = descriptor_pb2.FileDescriptorSet()
    pruned.CopyFrom(files)
    for file in pruned.file:
        file.ClearField("source_code_info")
        for service in file.service:
            for index in reversed(range(len(service.method))):
                if service.method[index].options.Extensions[options_pb2.policy].internal:
                    del service.method[index]
    return pruned.SerializeToString(deterministic=True)


def _rpc(
    service: str, method: descriptor_pb2.MethodDescriptorProto, raw: Container[tuple[str, str]]
) -> Rpc:
    policy = method.options.Extensions[options_pb2.policy]
    deadline = policy.deadline.seconds + policy.deadline.nanos / 1e9
    if policy.WhichOneof("access") is None or deadline <= 0:
        raise GatewayError(f"{service}.{method.name} declares no access or no deadline")
    if not (policy.internal or policy.rate_class):
        raise GatewayError(f"{service}.{method.name} declares no rate class")
    return Rpc(
        service=service,
        name=method.name,
        deadline=deadline,
        public=policy.public,
        internal=policy.internal,
        repeatable=method.options.idempotency_level
        != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        bindings=tuple(
            replace(each, raw=(method.input_type, each.body) in raw)
            for each in _bindings(method.options.Extensions[annotations_pb2.http])
        ),
        rate_class=_rate_class(policy.rate_class),
        cost=policy.cost or 1,
        opaque=_HTTP_BODY in (method.input_type, method.output_type),
    )


def _rate_class(number: options_pb2.RateClass.ValueType) -> str:
    """The name of a class without its prefix; empty for none."""
    return options_pb2.RateClass.Name(number).removeprefix(_CLASS_PREFIX) if number else ""


def _bindings(rule: http_pb2.HttpRule) -> Iterator[Binding]:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        yield Binding(rule.custom.kind.upper(), rule.custom.path, rule.body)
    elif kind is not None:
        yield Binding(kind.upper(), getattr(rule, kind), rule.body)
    for more in rule.additional_bindings:
        yield from _bindings(more)
