"""Summaries over their contract, through the real interceptors, on real databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plexus.history.v1 import history_service_pb2 as history
from plexus.history.v1 import session_pb2
from plexus.history.v1 import summary_service_pb2 as pb
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub
from plexus.history.v1.summary_service_pb2_grpc import SummaryServiceStub

from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import InvalidRequest, NotFound
from services.runtime.status import remote_errors
from tests.databases import KINDS, Databases
from tests.support import Served, served, settings_in

ALICE = mesh_principal("ten_a", "usr_a")
BOB = mesh_principal("ten_b", "usr_b")


@pytest.fixture(params=KINDS)
async def mesh(
    request: pytest.FixtureRequest, tmp_path: Path, databases: Databases
) -> AsyncIterator[Served]:
    """History alone: neither models nor memory can be reached."""
    settings = settings_in(tmp_path, **await databases.settings(request.param))
    async with served(settings, ["history"]) as found:
        yield found


@pytest.fixture
def stub(mesh: Served) -> SummaryServiceStub:
    return SummaryServiceStub(mesh.clients.channel("history"))


async def tell(mesh: Served, session: str, *texts: str) -> list[str]:
    """Append messages by turns, the user's first; their ids."""
    stub = HistoryServiceStub(mesh.clients.channel("history"))
    ids = [f"msg_{session}_{at}" for at in range(len(texts))]
    for at, (message_id, text) in enumerate(zip(ids, texts, strict=True)):
        role = session_pb2.AUTHOR_ROLE_AGENT if at % 2 else session_pb2.AUTHOR_ROLE_USER
        message = session_pb2.Message(
            message_id=message_id, session_id=session, role=role, text=text
        )
        await stub.AppendMessage(history.AppendMessageRequest(message=message))
    return ids


async def settled(stub: SummaryServiceStub, session: str) -> pb.Consolidation:
    """A consolidation that is not under way."""
    async with asyncio.timeout(20):
        while True:
            reply = await stub.GetConsolidation(pb.GetConsolidationRequest(session_id=session))
            if reply.consolidation.state != pb.CONSOLIDATION_STATE_RUNNING:
                return reply.consolidation
            await asyncio.sleep(0.02)


def consolidate(session: str, keep: int = 0) -> pb.ConsolidateSessionRequest:
    return pb.ConsolidateSessionRequest(session_id=session, keep_messages=keep)


TALK = (
    "My name is Ada Lovelace and the order weighs 12 kg.",
    "Noted. It ships on 5 May 2024.",
    "We decided to use PostgreSQL for the ledger. Who signs it?",
    "I do not know who signs it.",
)


async def test_a_summary_has_what_was_said_without_any_model(
    mesh: Served, stub: SummaryServiceStub
) -> None:
    with acting_as(ALICE):
        ids = await tell(mesh, "ses_1", *TALK)
        begun = (await stub.ConsolidateSession(consolidate("ses_1"))).consolidation
        assert begun.state == pb.CONSOLIDATION_STATE_RUNNING
        found = await settled(stub, "ses_1")
        assert (found.state, found.failure) == (pb.CONSOLIDATION_STATE_DONE, "")
        assert (found.through_message_id, found.message_count) == (ids[-1], 4)
        assert found.summary.model == "extractive"
        assert found.tokens_before > 30
        assert found.tokens_after > 10
        assert [*found.summary.decisions[0].message_ids] == [ids[2]]
        assert found.summary.open_questions[0].text == "Who signs it?"
        said = " ".join(line.text for line in (*found.summary.overview, *found.summary.details))
        assert "12 kg" in said
        assert "5 May 2024" in said
        # Nothing is new: nothing changes.
        again = (await stub.ConsolidateSession(consolidate("ses_1"))).consolidation
        assert again == found


async def test_more_is_taken_in_and_earlier_versions_stay(
    mesh: Served, stub: SummaryServiceStub
) -> None:
    with acting_as(ALICE):
        ids = await tell(mesh, "ses_2", *TALK)
        await stub.ConsolidateSession(consolidate("ses_2", keep=2))
        first = await settled(stub, "ses_2")
        assert (first.through_message_id, first.message_count) == (ids[1], 2)
        await stub.ConsolidateSession(consolidate("ses_2"))
        second = await settled(stub, "ses_2")
        assert (second.through_message_id, second.message_count) == (ids[3], 4)
        assert second.tokens_before > first.tokens_before
        said = [line.text for line in (*second.summary.overview, *second.summary.details)]
        assert any("12 kg" in line for line in said)
        for message_id, expected in (("", ids[3]), (ids[3], ids[1]), (ids[1], "")):
            request = pb.GetSummaryBeforeRequest(session_id="ses_2", message_id=message_id)
            before = await stub.GetSummaryBefore(request)
            assert before.through_message_id == expected
            assert before.HasField("summary") is bool(expected)


async def test_a_short_session_is_up_to_date_at_once(
    mesh: Served, stub: SummaryServiceStub
) -> None:
    with acting_as(ALICE):
        await tell(mesh, "ses_3", *TALK)
        got = await settled(stub, "ses_3")
        assert got == pb.Consolidation(session_id="ses_3", summary=pb.Summary())
        request = pb.ConsolidateSessionRequest(session_id="ses_3")
        found = (await stub.ConsolidateSession(request)).consolidation
        assert (found.state, found.message_count) == (pb.CONSOLIDATION_STATE_DONE, 0)
        assert (await stub.ConsolidateSession(request)).consolidation == found


async def test_asking_at_once_begins_one(mesh: Served, stub: SummaryServiceStub) -> None:
    with acting_as(ALICE):
        await tell(mesh, "ses_4", *TALK)
        await asyncio.gather(*(stub.ConsolidateSession(consolidate("ses_4")) for _ in range(20)))
        assert (await settled(stub, "ses_4")).message_count == 4


async def test_a_summary_for_one_call_is_of_the_newest(
    mesh: Served, stub: SummaryServiceStub
) -> None:
    with acting_as(ALICE):
        ids = await tell(mesh, "ses_5", *TALK)
        reply = await stub.SummarizeSession(
            pb.SummarizeSessionRequest(session_id="ses_5", newest=2)
        )
        lines = [*reply.summary.overview, *reply.summary.decisions, *reply.summary.open_questions]
        assert {each for line in lines for each in line.message_ids} == {ids[2]}
        assert reply.omitted_count == 0
        assert not (await settled(stub, "ses_5")).state


async def test_another_tenants_session_looks_absent(mesh: Served, stub: SummaryServiceStub) -> None:
    with acting_as(ALICE):
        ids = await tell(mesh, "ses_6", *TALK)
        await stub.ConsolidateSession(consolidate("ses_6"))
        await settled(stub, "ses_6")
    with acting_as(BOB):
        errors = []
        for session in ("ses_6", "ses_absent"):
            for call in (
                stub.ConsolidateSession(consolidate(session)),
                stub.GetConsolidation(pb.GetConsolidationRequest(session_id=session)),
                stub.SummarizeSession(pb.SummarizeSessionRequest(session_id=session)),
                stub.GetSummaryBefore(
                    pb.GetSummaryBeforeRequest(session_id=session, message_id=ids[0])
                ),
            ):
                with pytest.raises(NotFound) as caught, remote_errors():
                    await call
                errors.append((caught.value.message, caught.value.metadata))
        assert len(set(map(str, errors))) == 1


async def test_what_no_text_should_be_does_no_harm(mesh: Served, stub: SummaryServiceStub) -> None:
    with acting_as(ALICE):
        await tell(mesh, "ses_7", " ", "\n" * 50, "a" * 100_000, "7 " * 20_000, "🙂\u202e 12 kg?")
        await stub.ConsolidateSession(consolidate("ses_7"))
        found = await settled(stub, "ses_7")
        assert (found.state, found.message_count) == (pb.CONSOLIDATION_STATE_DONE, 5)
        assert found.tokens_after < 2_000


async def test_what_no_database_takes_is_refused(mesh: Served, stub: SummaryServiceStub) -> None:
    with acting_as(ALICE):
        await tell(mesh, "ses_8", *TALK)
        for request in (
            pb.ConsolidateSessionRequest(session_id="ses_8", model="a\0b", keep_messages=0),
            pb.ConsolidateSessionRequest(session_id="ses\0"),
        ):
            with pytest.raises(InvalidRequest), remote_errors():
                await stub.ConsolidateSession(request)
