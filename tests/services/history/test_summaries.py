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
from services.runtime.errors import NotFound
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
