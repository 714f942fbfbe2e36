"""Summaries and attribution through the real server."""

from __future__ import annotations

import pytest
from plexus.context.v1 import digest_service_pb2 as pb
from plexus.context.v1.digest_service_pb2_grpc import DigestServiceStub

from services.runtime.errors import NotFound, Unavailable
from tests.services.context.conftest import Room

LEASE = [
    "The rent is due on the third of each month. It is paid to Ada Lovelace.",
    "Pets are allowed. The garden is shared by all tenants of the house.",
]


def cited(reply: pb.SummarizeResponse) -> None:
    """Every citation stands where it says."""
    for sentence in reply.sentences:
        assert sentence.citations
        for each in sentence.citations:
            source = reply.sources[each.source_index]
            assert source.text[each.span.start : each.span.end] == each.quote
            assert (each.cited_in.start, each.cited_in.end) == (0, len(sentence.text))


async def test_the_built_in_model_quotes_what_answers(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", LEASE)
    assert await room.found("rent")
    reply = await room.summarize(query="When is the rent due?")
    assert reply.found
    assert reply.model == "offline/extractive"
    assert reply.sentences[0].text == "The rent is due on the third of each month."
    cited(reply)


async def test_where_nothing_answers_nothing_is_said(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", LEASE)
    reply = await room.summarize(query="When was the rent of the Moon raised by aliens?")
    assert not reply.found
    assert not reply.sentences
    assert not reply.sources


async def test_what_a_model_makes_up_is_left_out_and_counted(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", LEASE)
    assert await room.found("rent")
    room.models.model = "lab/large"
    room.models.text = (
        "The rent is due on the third of each month [1]. The rent is due on the fifth of each "
        "month [1]. The rent is not due on the third of each month. The landlord owns a yacht [2]. "
        "- It is paid to Ada Lovelace."
    )
    reply = await room.summarize(query="When is the rent due, and to whom?")
    assert [each.text for each in reply.sentences] == [
        "The rent is due on the third of each month.",
        "It is paid to Ada Lovelace.",
    ]
    assert (reply.unsupported_count, reply.model) == (3, "lab/large")
    cited(reply)
    room.models.text = "NO ANSWER"
    assert not (await room.summarize(query="When is the rent due?")).found


async def test_documents_sessions_and_spaces_are_summarised(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", LEASE)
    room.memories.put("ten_a", "mem_1", "Ada prefers tea to coffee in the morning.")
    room.history.say("ten_a", "ses_1", "Please book a table for two on Friday evening.")
    for asked in ({"document_id": "doc_1"}, {"space": "shared/x"}, {"session_id": "ses_1"}):
        reply = await room.summarize(max_sentences=2, **asked)
        assert 0 < len(reply.sentences) <= 2
        cited(reply)
    for asked in ({"document_id": "doc_9"}, {"space": "shared/none"}, {"session_id": "ses_9"}):
        with pytest.raises(NotFound):
            await room.summarize(**asked)


async def test_confidential_memories_reach_no_other_model(room: Room) -> None:
    room.memories.put("ten_a", "mem_1", "The salary of Ada is a secret.", sensitivity=3)
    room.memories.put("ten_a", "mem_2", "The salary of Bob is public.")
    room.models.model = "lab/large"
    await room.summarize(space="shared/x", model="lab/large")
    ((_, sources, _),) = room.models.asked
    assert len(sources) == 1
    assert "Bob" in sources[0]


async def test_a_model_that_was_named_must_answer(room: Room) -> None:
    room.documents.put("ten_a", "doc_1", LEASE)
    room.models.away = True
    assert (await room.summarize(document_id="doc_1")).model == "offline/extractive"
    with pytest.raises(Unavailable):
        await room.summarize(document_id="doc_1", model="lab/large")


async def test_attribution_is_for_the_mesh(room: Room) -> None:
    stub = DigestServiceStub(room.mesh.clients.channel("context"))
    reply = await stub.Attribute(
        pb.AttributeRequest(text="It is due on the third [1].", source_texts=LEASE)
    )
    (only,) = reply.citations
    assert only.quote == "The rent is due on the third of each month."
