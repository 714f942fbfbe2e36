"""From one tenant nothing of another is seen, by any RPC and any way in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.isolation import (
    Attack,
    Attacker,
    Canaries,
    Leak,
    by_field,
    by_header,
    changes,
    rows_of,
)
from tests.faults.rpcs import by_name, rpcs
from tests.faults.suite import FULL, Suite, each, running, sized
from tests.faults.tenant import Tenant
from tests.faults.tenants import (
    RECIPES,
    SLOWLY,
    settle,
    slow_response,
    slow_run,
    unwritten,
    without_recipe,
)
from tests.faults.valid import valid
from tests.faults.wire import WAYS
from tests.faults.world import FaultyMesh, up
from tests.services.llm.scripted_openai import Answer, ScriptedOpenAi

_ATTACKERS = sized(1, 3)
_PER_FIELD = sized(4, 1000)
_BY_FIELD, _BY_HEADER = 300, 120
# What tells of the installation, or in numbers alone.
_OF_NOBODY = ("WatchHealth", "ListUsage", "GetIndex")
# What is asked in words is asked in their own.
_WORDED = {"Search": "query", "Summarize": "query", "Inject": "input"}
_RUN_VERBS = ("Watch", "Get", "Cancel")
_RESPONSE_VERBS = ("Get", "Cancel", "Delete")


@asynccontextmanager
async def echoing_model() -> AsyncIterator[ScriptedOpenAi]:
    """A model that says what it was told, so that canaries stand in what it wrote too."""
    async with ScriptedOpenAi() as model:

        async def script(answer: Answer) -> None:
            # Of this request: nothing was awaited since it was taken down.
            asked = str(model.last.body["messages"][-1]["content"])
            await answer.begin()
            for word in (f"{asked} " * (200 if SLOWLY in asked else 2)).split(" "):
                await answer.chunk(f"{word} ")
                await asyncio.sleep(0.05 if SLOWLY in asked else 0)
            await answer.chunk(finish="stop")
            await answer.done()

        model.script = script
        yield model


async def siege(
    suite: Suite,
    mesh: FaultyMesh,
    model_url: str,
    wanted: Callable[[Attack], bool] | None = None,
) -> tuple[list[Leak], int]:
    """Everything that others try with what one tenant has: the leaks, how much was tried."""
    mouth = mesh.mouth()
    names = ["victim", *(f"attacker{n}" for n in range(_ATTACKERS))]
    victim, *others = (
        Tenant(mouth, name, f"{suite.chance.getrandbits(64):016x}", model_url) for name in names
    )
    for tenant in (victim, *others):
        await settle(tenant)
    assert not unwritten(victim), f"no recipe calls {unwritten(victim)}"
    leaks: list[Leak] = []
    tried = 0
    for attacker in others:
        leaks += await _live(suite, mesh, victim, attacker)
        canaries = Canaries(mesh, victim)
        before = canaries.rows
        assert all(_marked(canaries, row) for rows in before.values() for row in rows)
        force = Attacker(suite, attacker, victim, canaries)
        fields = [
            attack
            for attack in by_field(suite, attacker, victim, _PER_FIELD)
            # From the fifth attempt on an e-mail waits, be it known or not: one of them is enough.
            if attacker is others[0] or attack.rpc.name != "AuthenticateUser"
        ]
        headers = list(by_header(attacker, victim))
        some = [*suite.some(fields, _BY_FIELD), *suite.some(headers, _BY_HEADER)]
        await each(filter(wanted, [*fields, *headers]) if wanted else some, force.attack)
        leaks += force.leaks
        leaks += changes(before, rows_of(mesh, victim.known["tenant_id"][0]))
        tried += force.tried
        suite.say(f"{force.tried} attacks by {attacker.name}; ms forbidden/absent: {force.times()}")
    await _control(victim)
    await mouth.close()
    return leaks, tried


def _marked(canaries: Canaries, row: dict[str, object]) -> bool:
    return any(str(value) in canaries.all for value in row.values())


async def _live(suite: Suite, mesh: FaultyMesh, victim: Tenant, attacker: Tenant) -> list[Leak]:
    """What can be had of what is under way; and does the attacker's own stay its own."""
    mine = await slow_run(attacker)
    run_id = await slow_run(victim)
    response_id = await slow_response(victim)
    canaries = Canaries(mesh, victim)
    force = Attacker(suite, attacker, victim, canaries)
    for name, field, named, absent in (
        *((f"{verb}Run", "run_id", run_id, "run_" + "0" * 26) for verb in _RUN_VERBS),
        *(
            (f"{verb}Response", "response_id", response_id, "resp_rsp_" + "0" * 26)
            for verb in _RESPONSE_VERBS
        ),
    ):
        rpc = by_name(name)
        for way in WAYS:
            pair = [valid(rpc.request, {field: each}) for each in (named, absent)]
            await force.attack(Attack(rpc, way, f"live {field}", pair[0], named, pair[1], absent))
    watched = by_name("WatchRun")
    own = valid(watched.request, {"run_id": mine})
    answer = await attacker.mouth.call("grpc", watched, own, attacker.headers, most=10)
    attack = Attack(watched, "grpc", "own live run_id", own, mine)
    force.leaks += [
        Leak("canary", "WatchRun", "grpc", attack.what, canary)
        for canary in canaries.seen(answer, attack)
    ]
    for tenant, own_id in ((victim, run_id), (attacker, mine)):
        (cancelled,) = await tenant.call("CancelRun", run_id=own_id)
        assert cancelled.run.run_id == own_id
    (whole,) = await victim.call("CancelResponse", response_id=response_id)
    assert json.loads(whole.data)["id"] == response_id
    return force.leaks


async def _control(victim: Tenant) -> None:
    """A check that finds nothing may be one that can find nothing: the victim sees its own."""
    for rpc in rpcs():
        if rpc.writes or rpc.internal or rpc.name in _OF_NOBODY or "interop" in rpc.path:
            continue
        words = {_WORDED[rpc.name]: victim.canary} if rpc.name in _WORDED else {}
        own = victim.own(rpc, **words)
        answer = await victim.mouth.call("grpc", rpc, own, victim.headers, most=3)
        assert answer.ok, (rpc.name, answer)
        public = rpc.access == "public"
        shown = [value for values in victim.known.values() for value in values]
        assert public or any(each.encode() in answer.seen for each in shown), rpc.name


def test_every_id_has_a_recipe() -> None:
    assert without_recipe() == []


def test_an_id_without_a_recipe_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RECIPES, "session_id")
    assert "GetSession.session_id" in without_recipe()


@pytest.mark.timeout(1800 if FULL else 120)
async def test_nothing_of_another_tenant_is_seen(tmp_path: Path) -> None:
    with running("isolation") as suite:
        async with echoing_model() as model:
            settings = {"llm_url": model.url, "llm_model": "scripted", "egress_allow": "127.0.0.1"}
            async with up(tmp_path / "data", **settings) as mesh:
                leaks, tried = await siege(suite, mesh, model.url)
        assert not leaks, "\n".join(map(str, leaks[:40]))
        # Fewer would mean that what there is to try was not found.
        assert tried > 200


# Each planted leak, and what shows it.
_SHOWN: dict[str, Callable[[Leak], bool]] = {
    "session_of_anybody": lambda leak: leak.rpc == "GetSession" and leak.kind == "canary",
    "runs_cached_without_tenant": lambda leak: leak.rpc == "GetRun" and leak.kind == "canary",
    "sessions_of_all": lambda leak: leak.rpc == "ListSessions" and leak.kind == "canary",
    "agent_is_forbidden": lambda leak: leak.rpc == "GetAgent" and leak.kind == "differs",
    "keys_of_anybody_are_deleted": lambda leak: (
        leak.kind == "changed" and leak.rpc == "identity_api_keys"
    ),
    "idempotency_across_tenants": lambda leak: (
        leak.rpc == "Process" and leak.what == "idempotency_key"
    ),
    "error_names_the_owner": lambda leak: leak.rpc == "ListMessages" and leak.kind == "differs",
    "live_runs_of_anybody": lambda leak: leak.rpc == "WatchRun" and leak.what == "live run_id",
    "header_is_believed": lambda leak: (
        leak.rpc == "ListAuditEntries" and leak.what.startswith("header")
    ),
    "page_token_is_believed": lambda leak: leak.rpc == "ListApiKeys" and leak.what == "page_token",
    "responses_of_anybody": lambda leak: (
        leak.rpc == "ListResponseInputItems" and leak.kind == "canary"
    ),
}


_WHERE = {
    *("GetSession", "GetRun", "ListSessions", "GetAgent", "DeleteApiKey", "Process"),
    *("ListMessages", "ListApiKeys", "ListResponseInputItems"),
}


def _may_show(attack: Attack) -> bool:
    if attack.what.startswith("header"):
        return attack.rpc.name == "ListAuditEntries" and attack.way == "direct"
    return attack.rpc.name in _WHERE


@pytest.mark.timeout(1800 if FULL else 120)
async def test_every_planted_leak_is_found(tmp_path: Path) -> None:
    with running("isolation-planted") as suite:
        async with echoing_model() as model:
            settings = {"llm_url": model.url, "llm_model": "scripted", "egress_allow": "127.0.0.1"}
            async with up(tmp_path / "data", *_SHOWN, **settings) as mesh:
                leaks, _ = await siege(suite, mesh, model.url, _may_show)
        unseen = [name for name, shows in _SHOWN.items() if not any(map(shows, leaks))]
        assert not unseen, (unseen, sorted({(leak.kind, leak.rpc, leak.what) for leak in leaks}))
