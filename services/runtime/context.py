"""Who calls, and in which request: carried by the task that serves the call."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field

from plexus.options.v1.options_pb2 import Role


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential was verified.

    Attributes:
        tenant_id: The tenant whose data it sees; empty for the mesh itself before it acts for one.
        user_id: The user it acts for.
        credential_id: What to revoke to stop it: a token's id.
        roles: Numbers of `plexus.options.v1.Role`.
        mesh: True where a service of this mesh calls on the principal's behalf.
        login_id: What all tokens of one login share; empty for an API key.
        role: The highest role.
    """

    tenant_id: str
    user_id: str
    credential_id: str
    roles: frozenset[int]
    mesh: bool = False
    login_id: str = ""
    role: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Find the highest role once: each call asks for it."""
        object.__setattr__(self, "role", max(self.roles, default=0))

    @property
    def actor_id(self) -> str:
        """Who did it, for records: an API key's id, else the user's."""
        return self.credential_id if self.credential_id.startswith("key_") else self.user_id


@dataclass(slots=True)
class CallContext:
    """One request as it goes through the mesh.

    Attributes:
        request_id: From the gateway's `x-request-id`, or new.
        trace_id: 32 hexadecimal digits, as in W3C `traceparent`.
        principal: Set by the auth interceptor; None on a public RPC.
        deadline: When the answer is due, in the event loop's time; None where nobody waits.
        method: The RPC's path.
        started: When it arrived, by the performance counter.
    """

    request_id: str
    trace_id: str
    principal: Principal | None = None
    deadline: float | None = None
    method: str = ""
    started: float = 0.0


_current: ContextVar[CallContext | None] = ContextVar("plexus_call", default=None)


def current() -> CallContext:
    """The request that is being served.

    Raises:
        LookupError: Nothing is being served: a worker must open a scope with `acting_as`.
    """
    call = _current.get()
    if call is None:
        raise LookupError("no request is being served here")
    return call


def current_or_none() -> CallContext | None:
    """The request that is being served, if any."""
    return _current.get()


def principal() -> Principal:
    """The verified caller.

    Raises:
        LookupError: The RPC is public and nobody is logged in.
    """
    found = current().principal
    if found is None:
        raise LookupError("this call has no verified caller")
    return found


def enter(call: CallContext) -> Token[CallContext | None]:
    """Make `call` the current request in this task and in those it starts, until `leave`."""
    return _current.set(call)


def leave(token: Token[CallContext | None]) -> None:
    """Serve what was served before."""
    _current.reset(token)


@contextmanager
def serving(call: CallContext) -> Iterator[CallContext]:
    """Make `call` the current request within a block."""
    token = enter(call)
    try:
        yield call
    finally:
        leave(token)


def mesh_principal(tenant_id: str = "", user_id: str = "") -> Principal:
    """The mesh itself, on behalf of a tenant where one is named."""
    return Principal(tenant_id, user_id, "mesh", frozenset({Role.ROLE_OWNER}), mesh=True)


@contextmanager
def acting_as(who: Principal, cause: CallContext | None = None) -> Iterator[CallContext]:
    """A scope for work that no request waits for, such as a worker's, or what a request began."""
    call = CallContext(
        cause.request_id if cause else new_request_id(),
        cause.trace_id if cause else new_request_id(),
        principal=who,
    )
    with serving(call):
        yield call


def new_request_id() -> str:
    """An id for a request that came without one: 32 hexadecimal digits, which are no secret."""
    return f"{random.getrandbits(128) or 1:032x}"
