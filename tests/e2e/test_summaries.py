"""A conversation in short: consolidated, summarised, and hidden from others."""

from __future__ import annotations

import asyncio

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.history.v1 import summary_service_pb2 as pb

from services.runtime.errors import NotFound
from tests.e2e.callers import Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh

SUMMARIES = "history.v1.SummaryService"
TALK = (
    "My name is Ada Lovelace, and the order weighs 12 kg.",
    "We decided to use PostgreSQL for the ledger.",
    "It ships on 5 May 2024.",
)


async def talk(caller: Rest) -> str:
    """Runs of the offline model in one session; its id."""
    session = ""
    for text in TALK:
        request = agents.ProcessRequest(input=text, session_id=session)
        async for event in caller.stream(
            "agents.v1.AgentsService/Process", request, run_pb2.RunEvent
        ):
            session = event.run_started.session_id or session
    return session


async def consolidation(caller: Rest, session: str) -> pb.Consolidation:
    """How it stands."""
    request = pb.GetConsolidationRequest(session_id=session)
    reply = await caller.unary(
        f"{SUMMARIES}/GetConsolidation", request, pb.GetConsolidationResponse
    )
    return reply.consolidation


async def test_a_conversation_in_short(rest: Rest, mesh: Mesh) -> None:
    await sign_up(rest)
    session = await talk(rest)
    assert not (await consolidation(rest, session)).state
    request = pb.ConsolidateSessionRequest(session_id=session, keep_messages=0)
    begun = await rest.unary(
        f"{SUMMARIES}/ConsolidateSession", request, pb.ConsolidateSessionResponse
    )
    assert begun.consolidation.session_id == session
    async with asyncio.timeout(20):
        while (found := await consolidation(rest, session)).state == pb.CONSOLIDATION_STATE_RUNNING:
            await asyncio.sleep(0.05)
    assert (found.state, found.message_count) == (pb.CONSOLIDATION_STATE_DONE, 2 * len(TALK))
    assert found.summary.model == "extractive"
    assert "PostgreSQL" in found.summary.decisions[0].text
    lines = [*found.summary.overview, *found.summary.decisions, *found.summary.details]
    assert all(line.message_ids for line in lines)
    said = " ".join(line.text for line in lines)
    assert all(each in said for each in ("Ada Lovelace", "12 kg", "5 May 2024"))
    for method, how in (("GET", "params"), ("POST", "json")):
        body = {"session_id": session, "newest": "4"}
        async with rest.request(method, "/v1/history/summarize", **{how: body}) as reply:
            assert reply.status == 200
            made = await reply.json()
        assert "5 May 2024" in str(made["summary"])
        assert "Ada" not in str(made["summary"])
    await sign_up(rest)
    for name, asked, answer in (
        ("ConsolidateSession", request, pb.ConsolidateSessionResponse),
        ("SummarizeSession", pb.SummarizeSessionRequest(session_id=session), pb.Summary),
    ):
        with pytest.raises(NotFound):
            await rest.unary(f"{SUMMARIES}/{name}", asked, answer)
    with pytest.raises(NotFound):
        await consolidation(rest, session)
