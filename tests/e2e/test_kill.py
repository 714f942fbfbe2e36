"""Kill -9 at any moment: what a client saw is there, and every run ends.

Each round starts the mesh on the same data, lets clients ask a scripted model that writes slowly,
kills everything at a random moment, starts again, and compares what each client had seen with what
is kept. The seed is printed when a round fails.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.history.v1 import history_service_pb2 as history
from plexus.identity.v1 import identity_service_pb2 as identity

from services.runtime.errors import PlexusError
from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.faults.suite import FULL
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

ROUNDS = 50 if FULL else 8
CLIENTS = 6
WORDS = tuple(f"word{n} " for n in range(40))
ENDED_SECONDS = 3.0
TERMINAL = {"run_completed", "run_failed", "run_cancelled"}


@dataclass
class Asked:
    """What one client asked, and what it saw of the answer."""

    key: str
    seen: list[run_pb2.RunEvent] = field(default_factory=list)


async def ask(caller: Grpc, asked: Asked) -> None:
    """Ask and listen until the end, or until the connection is gone."""
    request = agents.ProcessRequest(input=f"Tell me about {asked.key}.", idempotency_key=asked.key)
    try:
        async for event in caller.stream(
            "agents.v1.AgentsService/Process", request, run_pb2.RunEvent
        ):
            asked.seen.append(event)
    except PlexusError:
        return


async def check(caller: Grpc, asked: Asked) -> str:
    """Take the stream up again; returns how the run ended."""
    before = len(asked.seen)
    run_id = asked.seen[0].run_id
    async with asyncio.timeout(ENDED_SECONDS):
        async for event in caller.stream(
            "agents.v1.AgentsService/WatchRun",
            agents.WatchRunRequest(run_id=run_id, after_sequence=before),
            run_pb2.RunEvent,
        ):
            asked.seen.append(event)
    kept = [
        event
        async for event in caller.stream(
            "agents.v1.AgentsService/WatchRun",
            agents.WatchRunRequest(run_id=run_id),
            run_pb2.RunEvent,
        )
    ]
    assert kept == asked.seen, "what was seen before and after the kill is not what is kept"
    assert [event.sequence for event in kept] == list(range(1, len(kept) + 1))
    kinds = [event.WhichOneof("event") for event in kept]
    assert kinds[0] == "run_started"
    assert [kind in TERMINAL for kind in kinds] == [False] * (len(kinds) - 1) + [True]
    await check_history(caller, kept, asked.key)
    return str(kinds[-1])


async def check_history(caller: Grpc, kept: list[run_pb2.RunEvent], key: str) -> None:
    """The session holds the question once, and the answer, once, as far as it came."""
    text = "".join(event.text_delta.text for event in kept)
    reply = await caller.unary(
        "history.v1.HistoryService/ListMessages",
        history.ListMessagesRequest(session_id=kept[0].run_started.session_id),
        history.ListMessagesResponse,
    )
    whole = kept[-1].HasField("run_completed")
    expected = [(f"Tell me about {key}.", False)] + ([(text, not whole)] if text or whole else [])
    assert [(message.text, message.partial) for message in reply.messages] == expected
    if whole:
        assert text == "".join(WORDS)


@pytest.mark.timeout(400)
async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    endings: dict[str, int] = {}
    async with ScriptedOpenAi() as model:
        model.script = good(WORDS, pace=0.01)
        mesh = Mesh(tmp_path / "data", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        caller = Grpc(mesh.url)
        email = (await sign_up(caller)).user.email
        try:
            for number in range(ROUNDS):
                asked = [Asked(f"r{number}c{n}") for n in range(CLIENTS)]
                working = [asyncio.create_task(ask(caller, each)) for each in asked]
                if number % 4 == 3:  # others are at their last words by then
                    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(chance.uniform(0, 0.05))
                else:
                    await asyncio.sleep(chance.uniform(0, 0.6))
                await mesh.kill()
                await asyncio.gather(*working)
                await mesh.start()
                for how in await asyncio.gather(*(check(caller, e) for e in asked if e.seen)):
                    endings[how] = endings.get(how, 0) + 1
                profile = await caller.unary(
                    "identity.v1.IdentityService/GetProfile",
                    identity.GetProfileRequest(),
                    identity.GetProfileResponse,
                )
                assert profile.user.email == email
        except BaseException as error:
            error.add_note(f"seed {seed}, round {number}")
            raise
        finally:
            await caller.close()
            await mesh.kill()
    # Rounds that never cut a run, or never let one end, would have tried half.
    assert endings.get("run_failed", 0) > ROUNDS / 2
    assert endings.get("run_completed", 0) >= ROUNDS // 4
