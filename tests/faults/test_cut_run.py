"""Kill -9 of the process that streams a run.

The text that was streamed is kept, the run ends with INTERRUPTED within seconds of the restart, and
the model is not asked again for what it was paid for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from plexus.errors.v1 import errors_pb2
from plexus.history.v1 import history_service_pb2 as history

from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.faults.processes import Installation, installed, kill, waited
from tests.faults.stored import asked_twice
from tests.faults.suite import FULL, Suite, running, sized, until_shown
from tests.faults.told import TERMINAL, Eager, Findings, Told, follow, spread
from tests.faults.world import FaultyMesh, up
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

ROUNDS = sized(1, 10)
CLIENTS = 4
ENDED_SECONDS = 3.0
WORDS = tuple(f"word{number} " for number in range(sized(40, 60)))
_PACE = 0.05
_BEFORE = 4
# Where a planted defect leaves runs without an end, nobody waits for it for long.
_PATIENCE, _SHORT_PATIENCE = 8.0, 3.0


@dataclass
class Round:
    """Some runs that were cut.

    Attributes:
        restarted: When whoever may end them was there again.
        pid: The process that was restarted.
        waited: For how long it had waited for a processor by then.
        cut: The runs that the killed process streamed.
    """

    restarted: float
    pid: int
    waited: float
    cut: list[Told] = field(default_factory=list)


async def streaming(told: list[Told]) -> None:
    """Wait until every client has seen some text."""
    async with asyncio.timeout(30):
        while not all(len(each.seen) >= _BEFORE for each in told):
            await asyncio.sleep(0.01)


async def kill_embedded(mesh: FaultyMesh, told: list[Told]) -> Round:
    """End the one process there is, and start it again."""
    await mesh.kill()
    await mesh.start()
    return Round(time.time(), mesh.pid, waited(mesh.pid), told)


async def kill_replica(mesh: Installation, told: list[Told], name: str, patience: float) -> Round:
    """End one of two; the other goes on, and a new one takes the name."""
    before = {each.key: each.breaks for each in told}
    pid = mesh.modules()[name]
    kill(pid)
    pid = await mesh.another(name, pid)
    restarted = time.time()
    while not all(each.ended for each in told) and time.time() < restarted + patience:
        await asyncio.sleep(0.02)
    cut = [each for each in told if each.breaks > before[each.key]]
    return Round(restarted, pid, 0.0, cut)


async def one_round(
    suite: Suite,
    mesh: FaultyMesh,
    caller: Grpc,
    number: int,
    found: Findings,
    patience: float,
) -> list[float]:
    """Cut some runs; returns the seconds from the restart to the end of each.

    They are net of the time in which the new process waited for a processor.
    """
    told = [Told(f"r{number}c{client}") for client in range(CLIENTS)]
    gave_up = asyncio.Event()

    working = [asyncio.create_task(follow(caller, each, found, gave_up.is_set)) for each in told]
    await streaming(told)
    await asyncio.sleep(suite.chance.uniform(0, 0.5))
    if isinstance(mesh, Installation):
        name = suite.chance.choice(("agents-0", "agents-1"))
        cut = await kill_replica(mesh, told, name, patience)
    else:
        cut = await kill_embedded(mesh, told)
    await asyncio.wait(working, timeout=patience)
    waits = waited(cut.pid) - cut.waited
    suite.note("ended", ends=[end_of(each) for each in told], cut=cut)
    gave_up.set()
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    checks = (check(caller, each, found, cut=each in cut.cut) for each in told)
    await asyncio.gather(*checks)
    return [max(0.0, end_of(each) - cut.restarted - waits) for each in cut.cut if each.ended]


def end_of(told: Told) -> float:
    """When the last event that it saw came about."""
    last = told.seen[-1].time
    return last.seconds + last.nanos / 1e9


async def check(caller: Grpc, told: Told, found: Findings, *, cut: bool) -> None:
    """Compare what a client saw with what it finds now."""
    again = Told(told.key)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE if told.ended else 1):
            await follow(caller, again, found)
    if again.seen[: len(told.seen)] != told.seen:
        found.add("lost", f"{told.key}: {again.text} and not {told.text}")
    if not told.ended:
        found.add("no end", told.key)
        return
    kinds = [event.WhichOneof("event") for event in told.seen]
    if sum(kind in TERMINAL for kind in kinds) != 1:
        found.add("no one end", f"{told.key}: {kinds}")
    whole, last = "".join(WORDS), told.seen[-1]
    if not whole.startswith(told.text):
        found.add("twice", f"{told.key}: {told.text}")
    if cut and last.run_failed.reason != errors_pb2.ERROR_REASON_INTERRUPTED:
        found.add("not interrupted", f"{told.key}: {last}")
    if not cut and (told.text != whole or not last.HasField("run_completed")):
        found.add("cut for nothing", f"{told.key}: {last}")
    reply = await caller.unary(
        "history.v1.HistoryService/ListMessages",
        history.ListMessagesRequest(session_id=told.seen[0].run_started.session_id),
        history.ListMessagesResponse,
    )
    said = [(message.text, message.partial) for message in reply.messages]
    if said != [(told.input, False), (told.text, cut)]:
        found.add("not in history", f"{told.key}: {said} and not {told.text}")


async def trial(suite: Suite, folder: Path, shape: str, *defects: str, rounds: int) -> Findings:
    """Some rounds on one installation; what was found wrong."""
    patience = _SHORT_PATIENCE if defects else _PATIENCE
    found, seconds = Findings(suite), list[float]()
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ScriptedOpenAi())
        model.script = good(WORDS, pace=_PACE)
        settings = {"llm_url": model.url, "llm_model": "scripted"}
        if shape == "mesh":
            running_now = installed(folder, *defects, replicas="agents:2", **settings)
            mesh: FaultyMesh = await stack.enter_async_context(running_now)
        else:
            mesh = await stack.enter_async_context(up(folder, *defects, **settings))
        caller = Eager(mesh.url)
        stack.push_async_callback(caller.close)
        await sign_up(caller)
        for number in range(rounds):
            seconds += await one_round(suite, mesh, caller, number, found, patience)
        asked = asked_twice([each.body for each in model.requests], found)
    for each in seconds:
        if each > ENDED_SECONDS:
            found.add("late", f"{each:.2f} s after the restart")
    suite.say(
        f"{shape}: {rounds * CLIENTS} runs, {len(seconds)} cut ones ended {spread(seconds)} after "
        f"the restart; the model was asked {asked} times; {dict(found.kinds)}"
    )
    if not seconds and not defects:
        found.add("nothing cut", "no run was cut")
    return found


@pytest.mark.timeout(400 if FULL else 120)
@pytest.mark.parametrize("shape", ["embedded", "mesh"])
async def test_what_was_streamed_is_kept_and_paid_once(tmp_path: Path, shape: str) -> None:
    with running(f"cut-run-{shape}") as suite:
        found = await trial(suite, tmp_path / "data", shape, rounds=ROUNDS)
        found.require_none()


# Defects, and what shows each.
_SHOWN = {
    "cut_runs_begin_anew": {"paid twice", "twice", "not interrupted"},
    "text_of_cut_runs_is_dropped": {"not in history"},
    "runs_of_the_dead_are_left": {"no end"},
    "shown_before_kept": {"lost"},
}


async def _unseen(suite: Suite, folder: Path, defect: str, attempt: int) -> str:
    found = await trial(suite, folder / f"{defect}-{attempt}", "embedded", defect, rounds=1)
    return "" if found.kinds.keys() & _SHOWN[defect] else f"{defect}: {found.kinds}"


@pytest.mark.timeout(300)
async def test_a_planted_defect_shows(tmp_path: Path) -> None:
    with running("cut-run-planted") as suite:
        for defect in suite.some(_SHOWN, 1):
            await until_shown(partial(_unseen, suite, tmp_path, defect))
