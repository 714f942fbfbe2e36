"""What one tenant tries with everything that another has, and what must not come of it.

Each attack is a pair: a request that names something of the other tenant, and the same one naming
what never was. Neither reply may hold anything of the other's, and nobody must be able to tell the
two apart.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.runtime.ids import new_id
from tests.faults.rpcs import Rpc, rpcs
from tests.faults.suite import Suite
from tests.faults.tenant import WORD, Tenant
from tests.faults.wire import WAYS, Answer
from tests.faults.world import FaultyMesh, describe

# Tables that belong to the installation: what is in them is nobody's in particular.
COMMON_TABLES = {
    # Which process carries runs, answers, or summaries.
    "agents_owners",
    # Which of them writes the index.
    "context_leader",
    "context_owners",
    "history_owners",
    "ingest_owners",
    "interop_owners",
    "llm_owners",
    # One place after the other, for the changes of all.
    "memory_feed",
    "identity_login_failures",
    "identity_revocations",
    "identity_signing_keys",
    "identity_counters",
    # One counter for the feed of all tenants.
    "ingest_feed_ends",
}
# What keeps nothing, but leaves a trace: in the ledger, or on the memories that were of use.
TRACING = {"SummarizeSession", "Summarize", "Inject"}
# What nothing names any more is emptied by and by: it is nobody's already.
_OF_KEPT_HEAPS = "AND heap_id IN (SELECT heap_id FROM ingest_heaps WHERE state = 2)"
_KEPT = dict.fromkeys(("ingest_heaps", "ingest_parts", "ingest_passages"), _OF_KEPT_HEAPS)
# Whose existence an RPC tells by its contract: an e-mail has one account in the whole installation.
_TRIES = 10
_RESPONSE = "resp_"
TELLING = {("RegisterUser", "email")}
# Secrets of a caller's own; with another's they are that other.
_SECRETS = ("password", "refresh_token")
_ENCODED = re.compile(rb"[A-Za-z0-9_-]{16,}")
_PREFIXED = re.compile(r"^([a-z]+)_[0-9a-z]{26}$")


@dataclass(frozen=True)
class Attack:
    """One request of an attacker, and one that must look the same."""

    rpc: Rpc
    way: str
    what: str
    request: Message
    named: str
    absent: Message | None = None
    in_place: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.rpc.name} by {self.way} with {self.what} {self.named}"


@dataclass(frozen=True)
class Leak:
    """Something that came through: `kind` is canary, differs or changed."""

    kind: str
    rpc: str
    way: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.rpc} by {self.way} with {self.what}: {self.text}"


class Canaries:
    """What of a tenant's must never be seen by another: its canary, and every id of its rows."""

    def __init__(self, mesh: FaultyMesh, tenant: Tenant) -> None:
        self.rows = rows_of(mesh, tenant.known["tenant_id"][0])
        ids = {
            str(value)
            for table in self.rows.values()
            for row in table
            for name, value in row.items()
            if name.endswith(("_id", "_hash")) and name != "request_id" and value
        }
        # An id that is a common word would be found everywhere.
        self.all = {tenant.canary, *(each for each in ids if len(each) > 16)}

    def seen(self, answer: Answer, attack: Attack) -> list[str]:
        """Which of them an answer holds and its question did not."""
        sent = attack.request.SerializeToString() + repr(attack.headers).encode()
        haystack = b"\n".join([answer.seen, *answer.messages, *_decoded(answer.seen)])
        found = (each for each in self.all if each.encode() in haystack)
        return [each for each in found if each.encode() not in sent]


def rows_of(mesh: FaultyMesh, tenant_id: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of a tenant, by table.

    Raises:
        AssertionError: A table says of no row whose it is.
    """
    tables = mesh.sql("SELECT name FROM sqlite_master WHERE type = 'table'")
    found: dict[str, list[dict[str, Any]]] = {}
    for (table,) in tables:
        columns = [row[1] for row in mesh.sql(f"PRAGMA table_info({table})")]
        if table in COMMON_TABLES or "alembic" in table or table.startswith("sqlite_"):
            continue
        if table.endswith(("_schema", "_served_by", "_version", "_migrations")):
            continue
        assert "tenant_id" in columns, f"{table} has no tenant_id: is it in COMMON_TABLES?"
        kept = _KEPT.get(table, "")
        rows = mesh.sql(f"SELECT * FROM {table} WHERE tenant_id = ? {kept}", tenant_id)
        found[table] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def by_field(suite: Suite, attacker: Tenant, victim: Tenant, per_field: int) -> Iterator[Attack]:
    """Everything that an attacker asks for with what a victim has."""
    for rpc, way in _doors():
        for field in rpc.request.fields:
            yield from _with_field(suite, attacker, victim, rpc, way, field, per_field)


def by_header(attacker: Tenant, victim: Tenant) -> Iterator[Attack]:
    """Requests for what is an attacker's own, with headers that name the victim."""
    for rpc, way in _doors():
        yield from _with_headers(attacker, victim, rpc, way)


def _doors() -> Iterator[tuple[Rpc, str]]:
    return (
        (rpc, way)
        for rpc in rpcs()
        if not rpc.internal
        for way in WAYS
        if way != "rest" or rpc.bindings
    )


def _with_field(
    suite: Suite,
    attacker: Tenant,
    victim: Tenant,
    rpc: Rpc,
    way: str,
    field: FieldDescriptor,
    most: int,
) -> Iterator[Attack]:
    if field.type != FieldDescriptor.TYPE_STRING or field.name in _SECRETS:
        return
    for value in _values(suite, victim, field, most):
        request = attacker.own(rpc, **{field.name: value})
        absent = _absent(value)
        other = attacker.own(rpc, **{field.name: absent}) if absent else None
        if (rpc.name, field.name) in TELLING:
            other = None
        yield Attack(rpc, way, field.name, request, value, other, absent)


def _values(suite: Suite, victim: Tenant, field: FieldDescriptor, most: int) -> list[str]:
    """What of a victim's goes into a field."""
    certain = {
        # Kept as it is given, and looked up nowhere: who gives it sees it again.
        "subject_id": [WORD],
        "idempotency_key": [f"{victim.name}-1"],
        "email": [victim.email],
    }
    if field.name in certain:
        return certain[field.name]
    if field.name.endswith("_id"):
        right = victim.known[field.name]
        assert right, f"the recipe of {field.name} made none"
        wrong = [
            value
            for name, values in victim.known.items()
            if name.endswith("_id") and name != field.name
            for value in values
        ]
        return [*suite.some(right, most), *suite.some(wrong, 1)]
    if field.name == "page_token":
        assert field.containing_type is not None
        own = victim.tokens[field.containing_type.name.removesuffix("Request")]
        others = [each for each in victim.known["next_page_token"] if each not in own]
        return [*suite.some(own, most), *suite.some(others, 1)]
    if victim.known[field.name] and field.name == "etag":
        return victim.known["etag"][:1]
    # A filter or a name: what every text of theirs begins with finds all of them, if anything does.
    return [WORD]


def _absent(value: str) -> str:
    """What looks the same and never was; empty where there is no telling."""
    if found := _PREFIXED.match(value):
        return new_id(found[1])
    if value.startswith(_RESPONSE):
        return _RESPONSE + new_id(value.split("_")[1])
    if value.endswith("@example.com"):
        return f"{WORD}{'0' * (len(value) - len(WORD) - 12)}@example.com"
    return f"nobody-{new_id('x')}" if value.endswith("-1") else ""


def _with_headers(attacker: Tenant, victim: Tenant, rpc: Rpc, way: str) -> Iterator[Attack]:
    tenant_id, user_id = victim.known["tenant_id"][0], victim.known["user_id"][0]
    request_id = next(iter(victim.known["request_id"]), "x")
    for name, value in (
        ("x-plexus-tenant", tenant_id),
        ("x-plexus-tenant-id", tenant_id),
        ("x-tenant-id", tenant_id),
        ("x-plexus-user", user_id),
        ("x-request-id", request_id),
        ("traceparent", f"00-{request_id.replace('-', ''):0<32.32}-00f067aa0ba902b7-01"),
        ("baggage", f"tenant={tenant_id}"),
        ("cookie", f"tenant={tenant_id}; user={user_id}"),
        ("tid", tenant_id),
    ):
        yield Attack(rpc, way, f"header {name}", attacker.own(rpc), value, headers=((name, value),))


class Attacker:
    """Carries attacks out and judges what comes back."""

    def __init__(self, suite: Suite, tenant: Tenant, victim: Tenant, canaries: Canaries) -> None:
        self._suite = suite
        self._tenant = tenant
        self._victim = victim
        self._canaries = canaries
        self.leaks: list[Leak] = []
        self.tried = 0
        self._times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    async def attack(self, attack: Attack) -> None:
        """Try one, right after the victim did the same where that changes nothing."""
        rpc = attack.rpc
        if not rpc.writes and not rpc.streams and rpc.name not in TRACING:
            own = self._victim.own(attack.rpc)
            if attack.what in attack.rpc.request.fields_by_name:
                own = self._victim.own(attack.rpc, **{attack.what: attack.named})
            await self._victim.mouth.call(attack.way, attack.rpc, own, self._victim.headers)
        answer = await self._send(attack, attack.request)
        self.tried += 1
        self._suite.note(str(attack), **describe(answer))
        for canary in self._canaries.seen(answer, attack):
            self._leak("canary", attack, f"{canary} in {answer.seen[:600]!r}")
        if attack.absent is not None:
            other = await self._send(attack, attack.absent)
            self._compare(attack, answer, other)

    async def _send(self, attack: Attack, request: Message) -> Answer:
        headers = [*self._tenant.headers, *attack.headers]
        # Of a stream the beginning: that one is somebody's shows in its first event.
        most = 1 if attack.rpc.streams else 5
        for _ in range(_TRIES):
            answer = await self._tenant.mouth.call(
                attack.way, attack.rpc, request, headers, most=most
            )
            # The one before, whose end was not read, is being entered.
            if answer.reason != "IN_PROGRESS":
                break
            await asyncio.sleep(0.2)
        return answer

    def _compare(self, attack: Attack, forbidden: Answer, absent: Answer) -> None:
        if not forbidden.ok:
            self._times[attack.rpc.name].append((forbidden.seconds, absent.seconds))
        one, other = _shape(forbidden, attack.named), _shape(absent, attack.in_place)
        if one != other:
            self._leak("differs", attack, f"{one} is not {other}")

    def _leak(self, kind: str, attack: Attack, text: str) -> None:
        self.leaks.append(Leak(kind, attack.rpc.name, attack.way, attack.what, text))

    def times(self) -> dict[str, str]:
        """Medians of what is forbidden and of what is absent, in milliseconds, by RPC."""
        medians = {}
        for name, pairs in self._times.items():
            one, other = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
            medians[name] = f"{one:.1f}/{other:.1f}"
        return medians


def _shape(answer: Answer, named: str) -> tuple[Any, ...]:
    """What an error looks like, whatever it is about; a success is a success."""
    if answer.ok:
        return ("ok", answer.http)

    def plain(text: str) -> str:
        return text.replace(named, "<id>") if named else text

    return (
        answer.code,
        answer.reason,
        plain(answer.message),
        plain(answer.details),
        answer.http,
        answer.headers,
    )


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterable[Leak]:
    """What an attacker changed of the victim's rows."""
    for table, rows in before.items():
        if sorted(map(repr, rows)) != sorted(map(repr, after[table])):
            yield Leak("changed", table, "", "", f"rows of {table} are not what they were")


def _decoded(data: bytes) -> Iterator[bytes]:
    """What stands in base64 somewhere, as in a page token."""
    for found in _ENCODED.findall(data):
        try:
            yield base64.urlsafe_b64decode(found + b"=" * (-len(found) % 4))
        except binascii.Error:
            continue
