"""Who may call what, worked out from the options of the contracts, and what came of trying."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults import tricks
from tests.faults.credentials import MESH, Credential
from tests.faults.rpcs import Rpc, rpcs
from tests.faults.suite import Suite
from tests.faults.valid import valid
from tests.faults.wire import WAYS, Answer, Mouth, Raw
from tests.faults.world import describe

ALLOWED = "allowed"
DENIED = "denied"
UNAUTHENTICATED = "unauthenticated"
NOWHERE = "nowhere"
REFUSED = "refused"
BROKEN = "broken"
_CODES = {3: "INVALID_ARGUMENT", 7: DENIED, 12: NOWHERE}
_BROKEN = (-1, 2, 13, 14, 15)
_BY_HTTP = {400: REFUSED, 401: UNAUTHENTICATED, 404: NOWHERE, 405: NOWHERE}
# The gateway's words for what it does not even read.
_UNREADABLE = "The request cannot be read."
# A module's, before it looks at anything of a call.
_SHED = "This process has too much to do."
_SHED_SECONDS = 0.25
_MOST_SHED = 40


@dataclass(frozen=True)
class Attempt:
    """One cell of the matrix: what is sent, and how it must end."""

    rpc: Rpc
    credential: Credential
    way: str
    trick: str
    expected: frozenset[str]
    # What is sent where it is more than a call of the RPC: a request, gRPC's path, a payload.
    raw: Raw | None = None
    path: str = ""
    payload: bytes | None = None

    def __str__(self) -> str:
        return (
            f"{self.rpc.name} by {self.way} ({self.trick or 'plain'}) with {self.credential.name}"
        )


@dataclass(frozen=True)
class Finding:
    """A cell that is not what the contract says."""

    attempt: Attempt
    got: str
    answer: Answer

    def __str__(self) -> str:
        wanted = " or ".join(sorted(self.attempt.expected))
        return f"{self.attempt}: {self.got} instead of {wanted}: {describe(self.answer)}"


def expected(rpc: Rpc, credential: Credential, way: str) -> str:
    """What the contract's options say of a call to an RPC itself."""
    if rpc.internal and way != "direct":
        return NOWHERE
    if rpc.access == "public":
        return ALLOWED
    role = credential.role(way)
    if role is None:
        return UNAUTHENTICATED
    return ALLOWED if role >= (MESH if rpc.internal else rpc.role) else DENIED


def outcome(answer: Answer) -> str:
    """What an answer says about authorisation. What is not valid or not there was allowed."""
    if answer.code == -1 and answer.http in _BY_HTTP:
        return _BY_HTTP[answer.http]
    if answer.code == 16 and answer.reason == "UNAUTHENTICATED":
        return UNAUTHENTICATED
    if answer.code == 3 and answer.message == _UNREADABLE:
        return REFUSED
    if answer.reason == "MODEL_UNAVAILABLE":
        return ALLOWED  # whoever may make a provider may make one that is not there
    if answer.code in (7, 12):
        return _CODES[answer.code]
    return BROKEN if answer.code in _BROKEN else ALLOWED


def plain(credentials: list[Credential]) -> Iterator[Attempt]:
    """Every RPC with every credential, by every way in."""
    for rpc in rpcs():
        for credential in credentials:
            for way in credential.ways or WAYS:
                if way != "rest" or rpc.bindings:
                    must = frozenset({expected(rpc, credential, way)})
                    yield Attempt(rpc, credential, way, "", must)
            for way in {"grpc", "direct"} & {*(credential.ways or WAYS)}:
                # Who asks is looked at before what is asked.
                must = frozenset({expected(rpc, credential, way)})
                trick = "a body that is none"
                yield Attempt(rpc, credential, way, trick, must, path=rpc.path, payload=b"\xff")


def tricked(credentials: list[Credential]) -> Iterator[Attempt]:
    """Every trick with every RPC, with some credentials."""
    nobody = Credential("none", ())
    for rpc in rpcs():
        for credential in credentials:
            for trick, raw in tricks.requests(rpc):
                counts = nobody if tricks.HOP_BY_HOP in raw.headers else credential
                must = _at_door(tricks.leads(raw), counts)
                yield Attempt(rpc, credential, trick.split(":")[0], trick, must, raw=raw)
            for trick, path in tricks.native_paths(rpc):
                native = Raw("POST", path, (("content-type", "application/grpc"),))
                lead = tricks.leads(native)
                must = _at_door(lead, credential)
                yield Attempt(rpc, credential, "grpc", trick, must, path=path)
                # A module knows its methods by their exact names.
                same = expected(rpc, credential, "direct") if path == rpc.path else NOWHERE
                yield Attempt(rpc, credential, "direct", trick, frozenset({same}), path=path)


def _at_door(lead: tricks.Lead, credential: Credential) -> frozenset[str]:
    if lead.refused:
        return frozenset({REFUSED})
    if lead.rpc is None:
        return frozenset({NOWHERE})
    must = expected(lead.rpc, credential, "edge")
    if must == UNAUTHENTICATED:
        return frozenset({must})
    if lead.dead:
        return frozenset({NOWHERE})
    # The gateway reads a body, and whom it lets in may still lack a role: either comes first.
    return frozenset({must, REFUSED} if lead.unread or must == ALLOWED else {must})


async def _asked(mouth: Mouth, cell: Attempt) -> Answer:
    headers = cell.credential.headers
    if cell.raw is not None:
        raw = cell.raw
        raw = Raw(raw.verb, raw.path, (*raw.headers, *headers), raw.body)
        return await mouth.plain(raw, first=True)
    if cell.path:
        payload = cell.payload or valid(cell.rpc.request).SerializeToString()
        return await mouth.grpc(cell.way, cell.path, payload, headers)
    return await mouth.call(cell.way, cell.rpc, valid(cell.rpc.request), headers)


async def attempt(mouth: Mouth, suite: Suite, cell: Attempt) -> Finding | None:
    """Try one cell; again, where a busy machine let nobody in and asked nobody who he is."""
    answer = await _asked(mouth, cell)
    for _ in range(_MOST_SHED):
        if not answer.message.startswith(_SHED):
            break
        await asyncio.sleep(_SHED_SECONDS)
        answer = await _asked(mouth, cell)
    got = outcome(answer)
    suite.note(str(cell), got=got, **describe(answer))
    return None if got in cell.expected else Finding(cell, got, answer)
