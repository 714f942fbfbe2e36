"""Every RPC as the contracts declare it, out of the descriptor set: later ones are in here too."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from plexus.options.v1.options_pb2 import Role

from proto.tools.descriptors import Binding, Contracts, module
from tests.e2e.mesh import ROOT

_PURE = "NO_SIDE_EFFECTS"


@dataclass(frozen=True)
class Rpc:
    """One RPC.

    Attributes:
        path: As gRPC has it, such as `/plexus.agents.v1.AgentsService/GetRun`.
        access: `permission`, `public` or `internal`.
        role: The least role that may call; 0 where none is asked for.
        writes: Whether it may change something.
        streams: Whether it replies with a stream.
    """

    path: str
    access: str
    role: int
    deadline: float
    writes: bool
    streams: bool
    bindings: tuple[Binding, ...]
    request: Descriptor = field(compare=False, repr=False)
    reply: Descriptor = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """Its own name, such as `GetRun`."""
        return self.path.rpartition("/")[2]

    @property
    def internal(self) -> bool:
        """Whether only the mesh may call it."""
        return self.access == "internal"


@cache
def contracts() -> Contracts:
    """The contracts that the mesh under test is made from."""
    return Contracts.read(ROOT / "generated" / "plexus.binpb")


@cache
def rpcs() -> tuple[Rpc, ...]:
    """Every RPC, in the order of its file."""
    known = contracts()
    found = []
    for method in known.methods():
        policy = known.policy(method)
        assert policy is not None, f"{method.full_name} has no policy: a mesh does not start so"
        service = method.containing_service.full_name
        found.append(
            Rpc(
                path=f"/{service}/{method.name}",
                access=policy.access,
                role=Role.Value(policy.role) if policy.role else 0,
                deadline=policy.deadline,
                writes=known.options(method.full_name).get("idempotency_level") != _PURE,
                streams=method.server_streaming,
                bindings=tuple(known.bindings(method)),
                request=method.input_type,
                reply=method.output_type,
            )
        )
    return tuple(found)


def by_name(name: str) -> Rpc:
    """The RPC with a name, such as `GetRun`."""
    (found,) = (rpc for rpc in rpcs() if rpc.name == name)
    return found


def modules() -> list[str]:
    """The modules that have RPCs."""
    return sorted({module(rpc.path[1:]) for rpc in rpcs()})


def new_message(descriptor: Descriptor) -> Message:
    """An empty message."""
    return contracts().message_class(descriptor.full_name)()


def parse(descriptor: Descriptor, data: bytes) -> Message:
    """A message from its bytes."""
    return contracts().message_class(descriptor.full_name).FromString(data)


def as_json(message: Message) -> dict[str, Any]:
    """A message as REST has it."""
    return contracts().as_dict(message)
