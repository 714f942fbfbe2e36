"""Search through the real server and the embedded index."""

from __future__ import annotations

import asyncio

import pytest
from plexus.context.v1 import search_service_pb2 as pb
from plexus.context.v1 import source_pb2

from services.context.service import searching
from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import InvalidRequest, Unavailable
from services.runtime.status import remote_errors
from tests.services.context.conftest import Room


async def test_what_was_stored_before_the_call_is_found(room: Room) -> None:
    room.documents.put(
        "ten_a", "doc_1", ["The invoice is due in thirty days.", "Lunch is at noon."]
    )
    room.memories.put("ten_a", "mem_1", "Invoices go to Ada.", subject="billing")
    assert len(await room.found("invoices")) == 2
    reply = await room.search("Where do invoices go?")
    assert {each.source.text for each in reply.hits} == {
        "The invoice is due in thirty days.",
        "Invoices go to Ada.",
    }
    best = reply.hits[0]
    assert best.source.kind == source_pb2.SOURCE_KIND_MEMORY
    assert best.ranks[0].signal == pb.SIGNAL_LEXICAL
    marked = [best.source.text[each.start : each.end] for each in best.highlights]
    assert marked == ["Invoices", "go"]


async def test_what_changes_is_found_as_it_is(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["alpha one", "alpha two"])
    assert len(await room.found("alpha")) == 2
    room.documents.put("ten_a", "doc_1", ["alpha three"])
    assert await room.found("alpha") == ["alpha three"]
    room.documents.remove("doc_1")
    assert await room.found("alpha") == []
    room.memories.put("ten_a", "mem_1", "beta one")
    room.memories.put("ten_a", "mem_1", "beta two")
    assert await room.found("beta") == ["beta two"]
    room.memories.erase("mem_1")
    assert await room.found("beta") == []


async def test_each_finds_what_it_may_read(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["plan of alice"], private=True, owner_id="usr_a")
    room.memories.put("ten_a", "mem_1", "plan of bob", space="user/usr_b")
    room.documents.put("ten_b", "doc_2", ["plan of others"])
    assert await room.found("plan") == ["plan of alice"]
    assert await room.found("plan", user="usr_b") == ["plan of bob"]
    assert await room.found("plan", tenant="ten_b") == ["plan of others"]
    assert await room.found("plan", tenant="ten_c") == []


async def test_pages_hold_everything_once(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", [f"alpha {n}" for n in range(23)])
    found: list[str] = []
    token = ""
    while True:
        reply = await room.search("alpha", page_size=5, page_token=token)
        found += [each.source.text for each in reply.hits]
        token = reply.next_page_token
        if not token:
            break
        assert len(reply.hits) == 5
    assert sorted(found) == sorted(f"alpha {n}" for n in range(23))
    first = await room.search("alpha", page_size=5)
    for asked in ({"query": "beta"}, {"query": "alpha", "filter": "page = 1"}):
        with pytest.raises(InvalidRequest) as caught, remote_errors():
            await room.search(page_token=first.next_page_token, **asked)
        assert caught.value.violations[0].field == "page_token"


async def test_an_index_that_is_behind_says_so(room: Room) -> None:
    assert await room.found("alpha") == []
    room.memories.held = True
    room.memories.put("ten_a", "mem_1", "alpha")
    assert (await room.search("alpha")).stale
    # What is another tenant's does not make one wait.
    assert await room.found("alpha", tenant="ten_b") == []
    room.memories.held = False
    assert await room.found("alpha") == ["alpha"]


async def test_without_memory_documents_are_found_and_it_is_said(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["alpha"])
    room.memories.put("ten_a", "mem_1", "alpha beta")
    assert len(await room.found("alpha")) == 2
    room.memories.away = True
    reply = await room.search("alpha")
    assert reply.stale
    assert [each.source.document_id for each in reply.hits] == ["doc_1"]
    room.documents.away = True
    with pytest.raises(Unavailable), remote_errors():
        await room.search("alpha")


async def test_the_index_is_made_anew_beside_the_one_that_serves(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", [f"alpha {n}" for n in range(40)])
    room.memories.put("ten_b", "mem_1", "beta")
    await room.found("alpha")
    with acting_as(mesh_principal("ten_a", "usr_a")):
        before = await room.stub.GetIndex(pb.GetIndexRequest())
        assert (before.entries, before.behind, before.backend) == (40, 0, "edge")
        assert not before.HasField("rebuild_percent")
        room.memories.held = room.documents.held = True
        begun = await room.stub.RebuildIndex(pb.RebuildIndexRequest())
        again = await room.stub.RebuildIndex(pb.RebuildIndexRequest())
        assert begun.rebuild_percent == again.rebuild_percent == 0
        assert (await room.stub.GetIndex(pb.GetIndexRequest())).HasField("rebuild_percent")
        assert len((await room.search("alpha")).hits) == 40
        room.memories.held = room.documents.held = False
        async with asyncio.timeout(20):
            while (
                now := await room.stub.GetIndex(pb.GetIndexRequest())
            ).create_time == before.create_time:
                await asyncio.sleep(0.02)
        assert (now.entries, now.behind) == (40, 0)
    assert len(await room.found("alpha")) == 40
    assert await room.found("beta", tenant="ten_b") == ["beta"]


async def test_a_model_ranks_the_best_once_more(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", ["rent rent rent", "rent of the flat", "a rent"])
    usual = await room.found("rent")
    room.models.text = 'Here: {"ranking": [3, 99, 1, 3]}'
    reply = await room.search("rent", rerank_model="lab/large")
    assert [each.source.text for each in reply.hits] == [usual[2], usual[0], usual[1]]
    assert list(reply.signals) == [pb.SIGNAL_LEXICAL, pb.SIGNAL_RERANK]
    assert [each.signal for each in reply.hits[0].ranks] == [pb.SIGNAL_LEXICAL, pb.SIGNAL_RERANK]
    for text in ("no JSON", "[]", '{"ranking": "x"}', '{"ranking": [true, 0]}'):
        room.models.text = text
        reply = await room.search("rent", rerank_model="lab/large")
        assert [each.source.text for each in reply.hits] == usual
        assert list(reply.signals) == [pb.SIGNAL_LEXICAL]
    room.models.away = True
    assert list((await room.search("rent", rerank_model="lab/large")).signals) == [
        pb.SIGNAL_LEXICAL
    ]


@pytest.fixture
def embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEXUS_CONTEXT_EMBEDDINGS", "auto")


async def test_what_has_a_vector_is_found_by_it(embeddings: None, room: Room) -> None:
    room.models.embedding = "lab/vectors"
    room.documents.put("ten_a", "doc_1", ["rent of the flat", "lunch at noon"])
    room.memories.put("ten_b", "mem_1", "rent of others")
    assert await room.found("rent") == ["rent of the flat"]
    with acting_as(mesh_principal("ten_a", "usr_a")):
        async with asyncio.timeout(20):
            while not (await room.stub.GetIndex(pb.GetIndexRequest())).embedding_models:
                await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        while len((reply := await room.search("rent", signals=[pb.SIGNAL_SEMANTIC])).hits) < 2:
            await asyncio.sleep(0.05)
    assert reply.embedding_model == "lab/vectors"
    assert list(reply.signals) == [pb.SIGNAL_SEMANTIC]
    assert reply.hits[0].source.text == "rent of the flat"
    both = await room.search("rent")
    assert list(both.signals) == [pb.SIGNAL_LEXICAL, pb.SIGNAL_SEMANTIC]
    assert [each.signal for each in both.hits[0].ranks] == list(both.signals)


async def test_no_signal_is_refused(room: Room) -> None:
    with pytest.raises(InvalidRequest) as caught, remote_errors():
        await room.search("rent", signals=[pb.SIGNAL_UNSPECIFIED])
    assert caught.value.violations[0].field == "signals"


async def test_a_filter_that_was_left_out_shows_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted leak: the index is asked for everybody's. What it finds is not read."""
    room.documents.put("ten_b", "doc_1", ["rent of others"])
    room.documents.put("ten_a", "doc_2", ["rent of alice"], private=True, owner_id="usr_a")
    room.memories.put("ten_a", "mem_1", "rent of bob", space="user/usr_b")
    assert await room.found("rent", tenant="ten_b") == ["rent of others"]
    assert await room.found("rent") == ["rent of alice"]
    everything = {"must": [{"must_not": [{"is_empty": {"key": "kind"}}]}]}
    monkeypatch.setattr(searching, "of_tenant", lambda *_: everything)
    assert await room.found("rent") == ["rent of alice"]
    assert await room.found("rent", user="usr_c") == []
