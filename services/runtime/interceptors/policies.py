"""The policies of every RPC, each read from the contract."""

from __future__ import annotations

from collections.abc import Mapping

import protovalidate
from google.protobuf.message import Message

from services.runtime.context import CallContext
from services.runtime.contract import Access, Method
from services.runtime.credentials import MeshSigner, TokenVerifier
from services.runtime.errors import InvalidRequest, PermissionDenied, Unauthenticated, Violation
from services.runtime.interceptors.adapter import Metadata
from services.runtime.interceptors.limits import SharedLimits

ASSERTION_KEY = "x-plexus-assertion"
_MAX_VIOLATIONS = 50
_LONG_BYTES = 4096


class ContractPolicies:
    """Deadline, credential, permission and rules of every message, as the contract has them."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        tokens: TokenVerifier,
        mesh: MeshSigner,
        limits: SharedLimits | None = None,
    ) -> None:
        self._methods = methods
        self._limits = limits
        self._tokens = tokens
        self._mesh = mesh
        self._validator = protovalidate.Validator()

    def seconds(self, method: str) -> float:
        """No call takes longer than its contract says, whatever its caller asked for."""
        return self._methods[method].deadline

    async def on_start(self, call: CallContext, metadata: Metadata) -> None:
        """Verify the credential, then the permission.

        Raises:
            Unauthenticated: No credential, or a bad one.
            PermissionDenied: A role is missing.
            ResourceExhausted: The tenant makes more calls than it may.
        """
        method = self._methods[call.method]
        if method.access is Access.PUBLIC:
            return
        assertion = metadata.get(ASSERTION_KEY)
        if assertion:
            call.principal = self._mesh.verify(assertion)
        else:
            scheme, _, token = metadata.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise Unauthenticated("This call needs `authorization: Bearer …`. Log in first.")
            call.principal = await self._tokens.verify(token.strip())
        if method.access is Access.INTERNAL:
            if not call.principal.mesh:
                raise PermissionDenied("Only services of this installation may call this.")
        elif call.principal.role < method.role:
            raise PermissionDenied(
                f"Your roles do not hold {method.permission}.",
                metadata={"permission": method.permission},
            )
        if self._limits is not None:
            await self._limits.take(call, method)

    def on_request(self, call: CallContext, request: Message) -> None:
        """Check one message.

        Raises:
            InvalidRequest: With every violation by field path; of a long message with the first.
        """
        # All of a long one's can be hundreds of thousands, and everybody would wait for them.
        long = request.ByteSize() > _LONG_BYTES
        found = self._validator.collect_violations(request, fail_fast=long)
        if not found:
            return
        violations = [
            Violation(_path(each.proto.field), each.proto.message)
            for each in found[:_MAX_VIOLATIONS]
        ]
        fields = ", ".join(sorted({each.field for each in violations}))
        raise InvalidRequest(f"The request is not valid: see {fields}.", violations=violations)

    def on_reply(self, call: CallContext) -> None:
        """A stream ends when its credential is revoked.

        Raises:
            Unauthenticated: It was.
            Unavailable: That cannot be known now.
        """
        if call.principal is not None and not call.principal.mesh:
            self._tokens.require_unrevoked(call.principal)

    def of_mesh(self, metadata: Metadata) -> bool:
        """Whether it brings an assertion; `on_start` is to verify it."""
        return ASSERTION_KEY in metadata


def _path(field: object) -> str:
    """A field path as callers write it: `messages[2].text`."""
    path = ""
    for element in getattr(field, "elements", ()):
        path += ("." if path else "") + element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{subscript.value!r}]"
    return path
