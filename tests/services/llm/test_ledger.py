"""Budgets and the ledger's arithmetic, and the journal that outlives its process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm.domain.configuration import Budget, Period, Spent, Subject, first_day, reset_time
from services.llm.domain.ledger import NewCall, grant
from services.llm.domain.routing import Price
from services.llm.journal import Journal, left_behind
from services.runtime.context import acting_as
from services.runtime.errors import PlexusError, ResourceExhausted
from services.runtime.migrations import migrate
from services.runtime.replies import Repeatable
from tests.databases import KINDS, Databases
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.asking import text_of
from tests.services.llm.desk import ALICE, BOB, MIGRATIONS, Desk, asked

_COUNT = st.integers(0, 10**9)


def budget(max_cost: int = 0, max_tokens: int = 0) -> Budget:
    return Budget("bdg_1", "ten_a", Subject.TENANT, "", Period.DAY, max_cost, max_tokens, 1)


def call(most: int, least: int, tokens: int = 10, price: Price = Price(1, 1)) -> NewCall:
    return NewCall(
        "gen_1", "ten_a", "usr_a", "", "own", "m", "2026-11-21", 0, tokens, price, most, least
    )


@given(_COUNT, _COUNT, _COUNT, _COUNT, st.integers(0, 10**6), st.integers(0, 10**6), _COUNT)
def test_what_is_granted_never_passes_a_budget(
    max_cost: int, max_tokens: int, cost: int, tokens: int, most: int, price: int, input_: int
) -> None:
    asks = call(most, 0, input_ % 100_000, Price(price, price * 3))
    bound, spent = budget(max_cost, max_tokens), Spent(cost, tokens)
    try:
        answer = grant(asks, [(bound, spent)])
    except ResourceExhausted as error:
        assert error.reason == "BUDGET_SPENT"
        assert error.metadata == {"budget_id": "bdg_1"}
        return
    assert 0 <= answer <= most
    if max_tokens:
        assert spent.tokens + asks.input_tokens + answer <= max_tokens
    if max_cost:
        assert spent.cost + asks.price.of(asks.input_tokens, answer) <= max_cost


def test_an_answer_is_shortened_to_what_is_left_or_refused() -> None:
    held = [(budget(max_tokens=100), Spent(0, 50))]
    assert grant(call(1_000, 10), held) == 40
    with pytest.raises(ResourceExhausted):
        grant(call(1_000, 41), held)
    assert grant(call(20, 20), held) == 20


def test_periods() -> None:
    assert first_day(Period.MONTH, "2026-12-31") == "2026-12-01"
    assert reset_time(Period.DAY, "2026-12-31") == reset_time(Period.MONTH, "2026-12-05")
    assert reset_time(Period.MONTH, "2027-01-31") - reset_time(Period.DAY, "2026-12-31") == (
        31 * 86_400 * 1_000_000
    )


@pytest.fixture(params=KINDS)
async def desk(
    request: pytest.FixtureRequest, databases: Databases, tmp_path: Path
) -> AsyncIterator[Desk]:
    """Llm with a model server whose answers cost 8 dollars a million tokens."""
    database = (await databases.make(request.param)).of("llm")
    await migrate(database, "llm", MIGRATIONS)
    found = Desk(database, tmp_path / "journals")
    await found.upstream("one", Price(0, 8_000_000))
    await found.open()
    yield found
    await found.meter.drain(5)
    await found.tasks.stop()
    await found.stack.aclose()


async def bound(desk: Desk, *, cost: int = 0, tokens: int = 0, user: str = "") -> None:
    subject = Subject.USER if user else Subject.TENANT
    with acting_as(ALICE):
        await desk.spending.create(
            ALICE, subject, user, Period.DAY, (cost, tokens), Repeatable("", "")
        )


async def spent(desk: Desk) -> Spent:
    with acting_as(ALICE):
        return (await desk.spending.page(ALICE, 10, None))[0][1]


async def test_a_budget_is_never_passed_however_many_ask_at_once(desk: Desk) -> None:
    await bound(desk, tokens=1_000)
    server = desk.servers["one"]
    server.script = scripts.good(["x" * 160], usage=(10, 40), pace=0.05)
    ask = asked(model="one/tiny", max_output_tokens=90)
    found = await asyncio.gather(*(desk.answer(ask) for _ in range(40)), return_exceptions=True)
    refused = [each for each in found if isinstance(each, PlexusError)]
    assert {each.reason for each in refused} == {"BUDGET_SPENT"}
    # Each may take 6 + 90 tokens until it has taken 50.
    assert len(found) - len(refused) == 10
    assert await spent(desk) == Spent(10 * 40 * 8, 10 * 50)
    assert [text_of(each) for each in found if isinstance(each, list)] == ["x" * 160] * 10


async def test_what_is_spent_stays_spent_and_others_are_free(desk: Desk) -> None:
    await bound(desk, tokens=100, user="usr_a")
    desk.servers["one"].script = scripts.good(usage=(11, 80))
    await desk.answer(asked(model="one/tiny", max_output_tokens=80))
    with pytest.raises(ResourceExhausted) as raised:
        await desk.answer(asked(model="one/tiny", max_output_tokens=80))
    assert raised.value.retry_after is not None
    assert 0 < raised.value.retry_after <= 86_400
    assert len(desk.servers["one"].requests) == 1
    await desk.answer(asked(model="one/tiny", max_output_tokens=80), BOB)


async def test_an_answer_without_a_bound_gets_one(desk: Desk) -> None:
    await bound(desk, cost=8 * 500)
    await desk.answer(asked(model="one/tiny"))
    assert desk.servers["one"].last.body["max_tokens"] == 500


async def test_a_call_that_never_was_leaves_its_budget_whole(desk: Desk) -> None:
    await bound(desk, tokens=1_000)
    desk.servers["one"].script = scripts.status(400)
    with pytest.raises(PlexusError):
        await desk.answer(asked(model="one/tiny"))
    await desk.meter.drain(5)
    assert await spent(desk) == Spent()


_WRITER = """
import sys, time
from pathlib import Path
from services.llm.journal import Journal
journal = Journal(Path(sys.argv[1]), "pod/own_1")
slots = [journal.begin(f"gen_{number}") for number in range(2000)]
for number, slot in enumerate(slots):
    journal.note(slot, number * 7)
for slot in slots[:1000]:
    journal.end(slot)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_journal_outlives_its_process(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == "ready\n"
        with left_behind(tmp_path, "pod/own_1") as sizes:
            assert sizes is None
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    with left_behind(tmp_path, "pod/own_1") as sizes:
        assert sizes == {f"gen_{number}": number * 7 for number in range(1000, 2000)}
    assert not list(tmp_path.iterdir())
    with left_behind(tmp_path, "pod/own_1") as sizes:
        assert sizes == {}


def test_a_journal_with_nothing_in_it_is_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "own_2")
    slot = journal.begin("gen_1")
    journal.end(slot)
    journal.close()
    assert not list(tmp_path.iterdir())
    journal = Journal(tmp_path, "own_2")
    journal.begin("gen_1")
    journal.close()
    with left_behind(tmp_path, "own_2") as sizes:
        assert sizes == {"gen_1": 0}
