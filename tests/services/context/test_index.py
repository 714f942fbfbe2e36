"""What both backends promise, from one suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.context.domain.conditions import Both, of_tenant
from services.context.domain.entries import (
    MemoryFacts,
    PassageFacts,
    memory_entry,
    passage_entry,
    readable,
)
from services.context.index.backend import WORDS, Backend, Point
from services.context.text import bm25
from tests.services.context.backends import KINDS, opened

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
EVERYTHING = Both(())
SHELF = "a"


@pytest.fixture(params=KINDS)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with opened(request.param, tmp_path) as found:
        await found.create(SHELF)
        await found.serve(SHELF)
        yield found


def passage(number: int, text: str, tenant: str = "ten_a", **facts: object) -> Point:
    known = PassageFacts(tenant, f"doc_{number}", 1, f"psg_{number}", text, **facts)  # type: ignore[arg-type]
    entry = passage_entry(known)
    return Point(entry.entry_id, entry.payload, bm25.document(entry.text))


def memory(number: int, text: str, tenant: str = "ten_a", **facts: object) -> Point:
    known = MemoryFacts(
        tenant,
        f"mem_{number}",
        "v1",
        facts.pop("space", "shared/x"),  # type: ignore[arg-type]
        text,
        **facts,  # type: ignore[arg-type]
    )
    entry = memory_entry(known)
    return Point(entry.entry_id, entry.payload, bm25.document(entry.text))


async def test_a_shelf_that_served_is_read_until_it_is_dropped(index: Backend) -> None:
    await index.upsert(SHELF, [passage(1, "The invoice is due.")])
    await index.create("b")
    await index.serve("b")
    assert await index.shelves() == ("b", ["a", "b"])
    assert await index.count(SHELF, of_tenant("ten_a", EVERYTHING)) == 1
    for _ in range(2):
        await index.drop(SHELF)
    assert await index.shelves() == ("b", ["b"])
    assert await index.count("b", of_tenant("ten_a", EVERYTHING)) == 0


async def test_words_find_what_has_them_best_first(index: Backend) -> None:
    await index.upsert(
        SHELF,
        [
            passage(1, "The invoice is due in thirty days."),
            passage(2, "Invoices, invoices: every invoice again."),
            passage(3, "Lunch is at noon."),
        ],
    )
    everything = of_tenant("ten_a", EVERYTHING)
    found = await index.search(SHELF, WORDS, bm25.query("the invoices"), everything, 10)
    assert [each.payload["passage_id"] for each in found] == ["psg_2", "psg_1"]
    assert found[0].score > found[1].score > 0


async def test_nothing_of_another_tenant_shows(index: Backend) -> None:
    secret = [passage(n, "The secret plan", "ten_b") for n in range(20)]
    await index.upsert(SHELF, [passage(1, "A plan"), passage(2, "No word"), *secret])
    alone = of_tenant("ten_a", EVERYTHING)
    found = await index.search(SHELF, WORDS, bm25.query("plan"), alone, 50)
    assert [each.payload["passage_id"] for each in found] == ["psg_1"]
    assert await index.count(SHELF, alone) == 2
    before = found[0].score
    # How rare a word is, is known of one's own texts alone.
    await index.upsert(SHELF, [passage(n, "plan plan", "ten_c") for n in range(50)])
    (after,) = await index.search(SHELF, WORDS, bm25.query("plan"), alone, 50)
    assert after.score == pytest.approx(before)


async def test_readers_and_spaces_decide(index: Backend) -> None:
    await index.upsert(
        SHELF,
        [
            passage(1, "plan for all"),
            passage(2, "plan of alice", private=True, owner_id="usr_a"),
            passage(3, "plan of bob", private=True, owner_id="usr_b"),
            memory(4, "plan in x"),
            memory(5, "plan in y", space="shared/y"),
            memory(6, "old plan", until=10),
        ],
    )

    async def found(user: str, spaces: list[str], at: int = 5, *, past: bool = False) -> set[str]:
        condition = of_tenant("ten_a", readable(user, spaces, at, past=past))
        hits = await index.search(SHELF, WORDS, bm25.query("plan"), condition, 50)
        return {str(each.payload.get("passage_id", each.payload.get("memory_id"))) for each in hits}

    assert await found("usr_a", []) == {"psg_1", "psg_2"}
    assert await found("usr_b", ["shared/x"]) == {"psg_1", "psg_3", "mem_4"}
    assert await found("usr_c", ["shared/x"], past=True) == {"psg_1", "mem_4", "mem_6"}
    assert await found("usr_c", ["shared/x"], 20, past=True) == {"psg_1", "mem_4"}
