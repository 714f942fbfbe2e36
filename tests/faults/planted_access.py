"""Defects of authorisation."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from plexus.options.v1 import options_pb2

from tests.faults.planting import Plant, module, replace

_FILE = "plexus/identity/v1/identity_service.proto"


def _policies(change: Callable[[Any], Any]) -> None:
    """Let the server see other policies than the contracts have."""
    from services import app

    def make(original: Callable[[str], Mapping[str, Any]]) -> Callable[[str], Mapping[str, Any]]:
        return lambda of: {name: change(m) for name, m in original(of).items()}

    replace(app, "module_methods", make)


def role_is_too_low() -> None:
    """A viewer reads the audit log."""

    def change(method: Any) -> Any:
        mine = method.name.endswith("/ListAuditEntries")
        return dataclasses.replace(method, role=1) if mine else method

    _policies(change)


def public_by_mistake() -> None:
    """A module asks nobody who they are."""
    from services.runtime.contract import Access

    def change(method: Any) -> Any:
        mine = method.name.endswith("/ListModels")
        return dataclasses.replace(method, access=Access.PUBLIC) if mine else method

    _policies(change)


def audience_is_ignored() -> None:
    """A module takes tokens that are meant for somebody else."""
    credentials = module("runtime.credentials")

    class Jwt:
        """The library, but for one claim."""

        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def decode(self, *arguments: Any, **more: Any) -> Any:
            more["options"] = {**more["options"], "verify_aud": False}
            return original.decode(*arguments, **more)

    original = credentials.jwt
    replace(credentials, "jwt", lambda _: Jwt())


def revoked_is_good() -> None:
    """Nobody looks whether a credential was revoked."""
    from services.trust import IdentityTrust

    replace(IdentityTrust, "revoked", lambda _: lambda self, ids: False)


def edge_keeps_assertions() -> None:
    """The gateway lets callers say whom the mesh acts for."""
    from gateway import render

    replace(
        render,
        "_STRIPPED_PREFIXES",
        lambda prefixes: tuple(each for each in prefixes if "plexus" not in each),
    )


def internal_has_a_route() -> None:
    """The gateway has a route to what only the mesh may call."""
    from gateway import contract

    def make(original: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
        return lambda files: [
            dataclasses.replace(rpc, internal=rpc.internal and rpc.name != "GetWindow")
            for rpc in original(files)
        ]

    replace(contract, "rpcs", make)


def validation_comes_first() -> None:
    """A stranger learns what is wrong with a request before being asked who they are."""
    from services.runtime.interceptors.policies import ContractPolicies

    def make(original: Any) -> Any:
        assert inspect.iscoroutinefunction(original)

        async def on_start(self: Any, call: Any, metadata: Any) -> None:
            if not call.method.endswith("/GetSession"):
                await original(self, call, metadata)

        return on_start

    replace(ContractPolicies, "on_start", make)


def _new_rpc(fill: Callable[[Any], None]) -> None:
    """Add an RPC to a contract as its generated code is read."""

    class Pool:
        """The pool of all contracts, with one of them changed on its way in."""

        def __getattr__(self, name: str) -> Any:
            return getattr(pool, name)

        def AddSerializedFile(self, data: bytes) -> Any:  # noqa: N802
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name == _FILE:
                method = file.service[0].method.add(name="ForgottenRpc")
                method.input_type = ".plexus.identity.v1.GetProfileRequest"
                method.output_type = ".plexus.identity.v1.GetProfileResponse"
                fill(method.options.Extensions[options_pb2.policy])
                data = file.SerializeToString()
            return pool.AddSerializedFile(data)

    pool = descriptor_pool.Default()
    replace(descriptor_pool, "Default", lambda _: Pool)


def rpc_without_policy() -> None:
    """Somebody adds an RPC and forgets its policy."""
    _new_rpc(lambda policy: None)


def rpc_without_role() -> None:
    """Somebody adds an RPC and forgets who holds its permission."""

    def fill(policy: Any) -> None:
        policy.permission = "forgotten.read"
        policy.deadline.seconds = 5

    _new_rpc(fill)


def rpc_without_deadline() -> None:
    """Somebody adds an RPC and forgets how long it may take."""

    def fill(policy: Any) -> None:
        policy.public = True

    _new_rpc(fill)


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        role_is_too_low,
        public_by_mistake,
        audience_is_ignored,
        revoked_is_good,
        edge_keeps_assertions,
        internal_has_a_route,
        validation_comes_first,
        rpc_without_policy,
        rpc_without_role,
        rpc_without_deadline,
    )
}
