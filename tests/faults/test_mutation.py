"""Mutated requests: whatever comes in, an answer goes out that shows nothing of the inside."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.faults.mutation_grpc import WAITS_SECONDS, Bytes, GrpcMutator
from tests.faults.mutation_rest import Case, RestMutator
from tests.faults.rpcs import by_name, new_message
from tests.faults.suite import FULL, Suite, at_most, each, running, sized
from tests.faults.tenant import Tenant
from tests.faults.tenants import settle
from tests.faults.valid import valid
from tests.faults.wire import Answer, Mouth, Raw
from tests.faults.world import FaultyMesh, bearer, describe, register, up
from tests.services.llm.scripted_openai import ScriptedOpenAi

_REQUESTS = sized(1_600, 100_000)
_SECONDS = at_most(300.0)
# The gateway refuses unknown fields of JSON bodies: True as soon as that is built.
STRICT_JSON = True
_GRACE_SECONDS = 2.0
_HEAD_BYTES = 32 * 1024
# What the gRPC library says of frames, before any of the product's code sees the call: by gRPC's
# own specification, with its codes and in its words. An entry here is a wish, and is counted.
_OF_THE_LIBRARY = (
    "Compression bit set but no encoding configured",
    "SERVER: Received message larger than max",
    "Method not found!",
    "Deadline Exceeded",
)
# Of the inside: traces, files, modules, classes, and the words of what the product is built of.
_INSIDE = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/(usr|home|root|tmp|opt|etc)/|<class |object at 0x"
    r"|\b[A-Z]\w+(Error|Exception)\b|sqlalchemy|sqlite|asyncpg|aiosqlite|IntegrityError"
    r"|\bservices\.\w|grpc[._](aio|_cython|core)|grpc::|upstream|envoy|protobuf::|absl::"
    r"|Unexpected <|deserializ|UNIQUE constraint|hard limit|soft limit",
    re.IGNORECASE,
)
_UNKNOWN, _INTERNAL, _UNAVAILABLE, _DATA_LOSS = 2, 13, 14, 15
_BROKEN = (_UNKNOWN, _INTERNAL, _UNAVAILABLE, _DATA_LOSS)


@dataclass(frozen=True)
class Fault:
    """An answer that should not have been: `kind` says in which way."""

    kind: str
    rpc: str
    what: str
    sent: str
    answer: Answer

    def __str__(self) -> str:
        return f"{self.kind}: {self.rpc}: {self.what}: {self.sent} -> {describe(self.answer)}"


def judged(rpc: str, what: str, sent: bytes, answer: Answer, deadline: float) -> Iterator[Fault]:
    """What is wrong with an answer."""

    def fault(kind: str) -> Fault:
        return Fault(kind, rpc, what, repr(sent[:400]), answer)

    # Whoever may name a model's server may name one that does not answer.
    if (answer.http >= 500 or answer.code in _BROKEN) and answer.reason != "MODEL_UNAVAILABLE":
        yield fault("broken")
    head = sent.partition(b"\r\n\r\n")[0]
    # What had begun when its caller's own deadline passed is cut off: HTTP/1 has no word for it.
    cut = answer.http == 200 and answer.seconds > deadline
    # Of a head that is too large, the refusal may be lost with the connection.
    if answer.code == -1 and answer.http not in (404, 405) and len(head) < _HEAD_BYTES and not cut:
        yield fault("no answer")
    if answer.seconds > deadline + _GRACE_SECONDS:
        yield fault("late")
    if answer.code > 0 and not answer.reason:
        yield fault("no reason")
    if not answer.ok:
        words = {found[0] for found in _INSIDE.finditer(f"{answer.message} {answer.details}")}
        # What a caller sent may come back in a complaint about it.
        own = sent + unquote_to_bytes(sent)
        if any(word.encode() not in own for word in words):
            yield fault("inside")


def unknown_accepted(case: Case, answer: Answer) -> Iterator[Fault]:
    """An unknown field of a JSON body that was not refused by its path."""
    if not case.unknown or answer.code in (7, 8, 12, 16):
        return
    if answer.code != 3 or not all(f'"{path}"' in answer.details for path in case.unknown):
        yield Fault("unknown field", case.rpc, case.what, repr(case.raw.body[:400]), answer)


async def storm(
    suite: Suite,
    folder: Path,
    *defects: str,
    requests: int,
    wanted: Callable[[str], bool] | None = None,
) -> tuple[list[Fault], Counter[str]]:
    """So many mutated requests to a mesh: the faults, and how often each kind of answer came."""
    async with (
        ScriptedOpenAi() as model,
        up(folder, *defects, egress_allow="127.0.0.1") as mesh,
    ):
        return await _storm(suite, mesh, model.url, requests, wanted)


async def _storm(
    suite: Suite,
    mesh: FaultyMesh,
    model_url: str,
    requests: int,
    wanted: Callable[[str], bool] | None,
) -> tuple[list[Fault], Counter[str]]:
    mouth = mesh.mouth()
    tenant = Tenant(mouth, "sender", f"{suite.chance.getrandbits(64):016x}", model_url)
    await settle(tenant)
    known = {name: values for name, values in tenant.known.items() if name != "refresh_token"}
    rest = RestMutator(random.Random(suite.chance.random()), known)
    native = GrpcMutator(random.Random(suite.chance.random()), known)
    cases: Iterator[Case | Bytes] = (
        case for both in zip(rest.cases(), native.cases(), strict=True) for case in both
    )
    if wanted is not None:
        cases = (case for case in cases if wanted(_name(case)))
    faults: list[Fault] = []
    answers: Counter[str] = Counter()

    async def send(case: Case | Bytes) -> None:
        answer, sent, deadline = await _sent(mouth, tenant, case)
        suite.note(case.what, rpc=_name(case), sent=sent[:3000], **describe(answer))
        answers[answer.reason or str(answer.code)] += 1
        faults.extend(judged(_name(case), case.what, sent, answer, deadline))
        if isinstance(case, Case):
            faults.extend(unknown_accepted(case, answer))

    end = time.monotonic() + _SECONDS
    in_time = itertools.takewhile(lambda _: time.monotonic() < end, cases)
    await each(itertools.islice(in_time, requests), send)
    await mouth.close()
    suite.say(f"{answers.total()} of {requests} requests: {dict(answers.most_common())}")
    return faults, answers


async def _sent(mouth: Mouth, tenant: Tenant, case: Case | Bytes) -> tuple[Answer, bytes, float]:
    if isinstance(case, Case):
        raw = Raw(case.raw.verb, case.raw.path, (*case.raw.headers, *tenant.headers), case.raw.body)
        return await mouth.plain(raw, first=True), raw.bytes(), case.deadline
    headers = tenant.headers
    if case.raw is None:
        answer = await mouth.grpc("grpc", case.rpc.path, case.payload, headers)
        return answer, case.payload, case.rpc.deadline
    raw = Raw(case.raw.verb, case.raw.path, (*case.raw.headers, *headers), case.raw.body)
    return await mouth.plain(raw, first=True), raw.bytes(), WAITS_SECONDS


def _name(case: Case | Bytes) -> str:
    return case.rpc if isinstance(case, Case) else case.rpc.path[1:]


def by_kind(faults: list[Fault]) -> str:
    """The faults, one of each for a person."""
    first: dict[tuple[str, str, str], Fault] = {}
    for fault in faults:
        first.setdefault((fault.kind, fault.answer.reason, fault.answer.message[:60]), fault)
    counts = Counter(fault.kind for fault in faults)
    return f"{dict(counts)}\n" + "\n".join(map(str, list(first.values())[:25]))


@pytest.mark.timeout(300 + _SECONDS if FULL else 120)
async def test_whatever_comes_in_an_answer_goes_out(tmp_path: Path) -> None:
    with running("mutation") as suite:
        faults, answers = await storm(suite, tmp_path / "data", requests=_REQUESTS)
        accepted = [fault for fault in faults if fault.kind == "unknown field"]
        wishes = [fault for fault in faults if fault.answer.message.startswith(_OF_THE_LIBRARY)]
        suite.say(f"unknown fields accepted: {len(accepted)}; the library's words: {len(wishes)}")
        bad = [fault for fault in faults if fault not in wishes]
        bad = [fault for fault in bad if fault.kind != "unknown field" or STRICT_JSON]
        assert not bad, by_kind(bad)
        # A storm that is refused at the door, or that is all sound, shows nothing.
        assert answers["INVALID_REQUEST"] > answers.total() / 5
        assert answers["0"] > answers.total() / 20


# Each planted defect, and what shows it.
_SHOWN: dict[str, Callable[[Fault], bool]] = {
    "odd_tokens_are_a_surprise": lambda fault: (
        fault.kind == "broken" and fault.rpc.endswith("/ListAgents")
    ),
    "error_shows_its_cause": lambda fault: (
        fault.kind == "inside" and fault.rpc.endswith("/GetSession")
    ),
}


async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("mutation-planted") as suite:
        places = ("/ListAgents", "/GetSession")
        faults, _ = await storm(
            suite,
            tmp_path / "data",
            *_SHOWN,
            requests=400,
            wanted=lambda rpc: rpc.endswith(places),
        )
        unseen = [name for name, shows in _SHOWN.items() if not any(map(shows, faults))]
        assert not unseen, (unseen, by_kind(faults))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(13, "INTERNAL", "x", http=500), "broken"),
        (Answer(2, "", "Unexpected <class 'KeyError'>"), "inside"),
        (Answer(-1, message="no reply"), "no answer"),
        (Answer(5, "NOT_FOUND", "x", http=404, seconds=8.0), "late"),
        (Answer(12, "", "x"), "no reason"),
        (Answer(3, "INVALID_REQUEST", "see /usr/lib/x"), "inside"),
        (Answer(3, "INVALID_REQUEST", "x", '{"description": "KeyError"}'), "inside"),
    ],
)
def test_a_bad_answer_is_known(answer: Answer, kind: str) -> None:
    faults = judged("a.B/C", "x", b"GET / HTTP/1.1\r\n\r\n", answer, 5)
    assert kind in {fault.kind for fault in faults}


def test_an_accepted_unknown_field_is_known() -> None:
    case = Case("a.B/C", "x", Raw("POST", "/"), 5, unknown=("messages[0].unheard_of",))
    refused = Answer(3, "INVALID_REQUEST", "x", '{"field": "messages[0].unheard_of"}')
    other = Answer(3, "INVALID_REQUEST", "x", '{"field": "messages"}')
    assert [len(list(unknown_accepted(case, a))) for a in (Answer(0), other, refused)] == [1, 1, 0]


async def test_long_headers_are_taken_or_refused_in_our_words(tmp_path: Path) -> None:
    """What the gateway takes is not too much for the module behind it."""
    faults: list[Fault] = []
    async with up(tmp_path / "data") as mesh:
        mouth = mesh.mouth()
        rpc = by_name("GetJwks")
        for size in (7_000, 10_000, 15_000, 20_000, 30_000):
            headers = [(f"x-long-{number}", "y" * (size // 4)) for number in range(4)]
            # Some refuse by chance what is near their bound.
            for way in ("grpc", "rest", "web") * 4:
                answer = await mouth.call(way, rpc, valid(rpc.request), headers)
                faults += judged(rpc.path, f"{size} by {way}", b"", answer, rpc.deadline)
        await mouth.close()
    assert not faults, by_kind(faults)


@pytest.mark.parametrize("way", ["grpc", "rest"])
async def test_a_request_that_breaks_a_rule_often_holds_nobody_up(tmp_path: Path, way: str) -> None:
    """Half a megabyte of empty messages breaks as many rules; others are served meanwhile."""
    async with up(tmp_path / "data") as mesh:
        mouth = mesh.mouth()
        _, tokens = await register(mouth, "busy@example.com")
        headers = bearer(tokens.access_token)
        rpc = by_name("Generate")
        kind = rpc.request.fields_by_name["messages"].message_type
        assert kind is not None
        item = new_message(kind)
        many = valid(rpc.request, {"messages": [item] * 150_000})
        profile = by_name("GetProfile")
        heavy = asyncio.create_task(mouth.call(way, rpc, many, headers))
        await asyncio.sleep(0.3)
        waits = []
        for _ in range(20):
            answer = await mouth.call("direct", profile, valid(profile.request), headers)
            assert answer.ok, answer
            waits.append(answer.seconds)
        assert (await heavy).reason == "INVALID_REQUEST"
        await mouth.close()
    assert max(waits) < 1.0, f"others waited {max(waits):.1f} s"
