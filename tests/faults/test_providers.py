"""Model providers on a bad day: every call ends in time and in words, and is paid for once."""

from __future__ import annotations

import asyncio
import importlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.llm.domain.generation import (
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    Usage,
)
from services.llm.service import attempts, generating
from services.llm.service.metering import Meter
from services.runtime.errors import PlexusError
from services.runtime.migrations import migrate
from services.runtime.resilience.retries import RetryBudget
from tests.databases import Databases
from tests.faults.suite import FULL, Suite, running, sized
from tests.services.llm import scripted_openai as scripts
from tests.services.llm.desk import ALICE, CHEAP, DEAR, MIGRATIONS, Desk, asked
from tests.services.llm.scripted_openai import Answer, Script

_CALLS = sized(300, 5_000)
_AT_ONCE = 32
_FAULTY = 0.3
_DEADLINE_SECONDS = 2.0
# What the scoreboard allows, and what a loop that is busy with thirty answers may be late.
_LATE_SECONDS = sized(0.75, 0.25)
_RETRIES = 0.2
# The budget lets two a second be made again, however few calls there are.
_FLOOR = 20
_WHOLE = "Hello, world."


async def _huge(answer: Answer) -> None:
    await answer.begin()
    await answer.raw(b'data: {"choices": [{"delta": {"content": "' + b"x" * 2_000_000)
    await asyncio.Event().wait()


FAULTS: dict[str, Script] = {
    "429": scripts.status(429, headers={"retry-after": "1"}),
    "500": scripts.status(500),
    "hangs": scripts.hang(),
    "hangs midway": scripts.hang(("Hello, ",)),
    "drips": scripts.drip(),
    "breaks its protocol": scripts.raw(b"data: {]\n\n"),
    "truncates": scripts.ends_early(),
    "is cut": scripts.cut(),
    "is cut at once": scripts.cut(()),
    "never ends a line": _huge,
}


@dataclass
class Storm:
    """What came of many calls."""

    ends: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    told: Usage = Usage(0, 0, estimated=False)
    asked: int = 0
    served: int = 0

    def note(self, events: Sequence[Event] | PlexusError, seconds: float) -> None:
        """One call that ended."""
        self.late.append(max(0.0, seconds - _DEADLINE_SECONDS))
        if isinstance(events, PlexusError):
            self.ends[events.reason] += 1
            return
        last = events[-1]
        text = "".join(each.text for each in events if isinstance(each, Delta))
        if isinstance(last, Finished):
            self.ends["finished"] += 1
            assert last.usage is not None
            self.told = self.told.plus(last.usage)
            if text != _WHOLE or last.reason is not FinishReason.STOP:
                self.wrong.append(f"{text!r} looks whole")
        elif isinstance(last, Failed):
            self.ends[f"failed {last.error.reason}"] += 1
            self.told = self.told.plus(last.usage)
        else:
            self.wrong.append(f"{last} is no end")


@asynccontextmanager
async def desk(
    databases: Databases, folder: Path, chance: random.Random, share: float = _FAULTY
) -> AsyncIterator[Desk]:
    """Llm with two model servers that have bad moments."""
    # Its first import takes a second, in which nobody else gets a turn.
    importlib.import_module("services.llm.providers.openai_compatible")
    database = (await databases.make("sqlite")).of("llm")
    await migrate(database, "llm", MIGRATIONS)
    found = Desk(database, folder / "journals", silence=1.0, limit=_AT_ONCE * 2)
    for name, price in (("one", CHEAP), ("two", DEAR)):
        server = await found.upstream(name, price)

        async def script(answer: Answer) -> None:
            faulty = chance.random() < share
            await (FAULTS[chance.choice(list(FAULTS))] if faulty else scripts.good())(answer)

        server.script = script
    try:
        await found.open()
        yield found
    finally:
        await found.tasks.stop()
        await found.stack.aclose()


async def storm(suite: Suite, found: Desk, calls: int, *routes: str) -> Storm:
    """So many calls, some of them at a time."""
    made = Storm()
    loop = asyncio.get_running_loop()
    left = iter(range(calls))

    async def worker() -> None:
        for number in left:
            ask = asked(model=routes[number % len(routes)])
            began = loop.time()
            outcome: Sequence[Event] | PlexusError
            try:
                outcome = await found.answer(ask, seconds=_DEADLINE_SECONDS)
            except PlexusError as error:
                outcome = error
            made.note(outcome, loop.time() - began)

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    made.asked = calls
    made.served = sum(len(server.requests) for server in found.servers.values())
    worst = max(made.late)
    suite.say(f"{calls} calls, {made.served} requests, {dict(made.ends)}, late {worst:.2f} s")
    return made


def against(made: Storm, total: dict[str, int], *, alone: bool) -> list[str]:
    """What is not as it must be; `alone` where no other candidate could be asked."""
    found = list(made.wrong)
    if max(made.late) > _LATE_SECONDS:
        found.append(f"late: {max(made.late):.2f} s")
    if alone and made.served > made.asked * (1 + _RETRIES) + _FLOOR:
        found.append(f"retries: {made.served} requests for {made.asked} calls")
    told = {
        "calls": made.asked,
        "input_tokens": made.told.input_tokens,
        "output_tokens": made.told.output_tokens,
        "cost": made.told.cost,
    }
    found += [
        f"ledger: {name} is {total[name]}, told were {value}"
        for name, value in told.items()
        if total[name] != value
    ]
    return found


@pytest.mark.timeout(900 if FULL else 120)
@pytest.mark.parametrize("candidates", [("one",), ("one", "two")], ids=["alone", "with another"])
async def test_every_call_ends_in_time_and_is_paid_for_once(
    tmp_path: Path, databases: Databases, candidates: tuple[str, ...]
) -> None:
    alone = len(candidates) == 1
    with running(f"providers-{len(candidates)}") as suite:
        async with desk(databases, tmp_path, suite.chance) as found:
            route = await found.route(*candidates)
            made = await storm(suite, found, _CALLS, route)
            assert against(made, await found.total(ALICE), alone=alone) == []
            # A storm in which nothing went wrong, or nothing right, shows nothing.
            assert made.ends["finished"] > made.asked * (0.3 if alone else 0.5), made.ends
            assert made.ends["failed MODEL_UNAVAILABLE"] > 0, made.ends


def _retries_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attempts, "_ROUNDS", 20)
    patch.setattr(RetryBudget, "take", lambda self: True)
    patch.setattr("services.runtime.resilience.breaker.Breaker.enter", lambda self: 0)


def _half_is_whole(patch: pytest.MonkeyPatch) -> None:
    original = generating._heard

    async def heard(*arguments: object) -> AsyncIterator[object]:
        try:
            async for piece in original(*arguments):  # type: ignore[arg-type]
                yield piece
        except PlexusError:
            yield Finished(FinishReason.STOP)

    patch.setattr(generating, "_heard", heard)


def _failures_are_free(patch: pytest.MonkeyPatch) -> None:
    original = Meter.end

    async def end(self: Meter, call: object, state: object, usage: Usage, *rest: object) -> bool:
        free = Usage(0, 0, estimated=True) if usage.estimated else usage
        return await original(self, call, state, free, *rest)  # type: ignore[arg-type]

    patch.setattr(Meter, "end", end)


_SHOWN = {
    "retries": _retries_without_end,
    "looks whole": _half_is_whole,
    "ledger": _failures_are_free,
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("word", _SHOWN)
async def test_a_planted_defect_shows(
    tmp_path: Path, databases: Databases, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    _SHOWN[word](monkeypatch)
    with running(f"providers-planted-{word.replace(' ', '-')}") as suite:
        # How often a call is made again shows where most of them fail.
        share = 0.8 if word == "retries" else _FAULTY
        async with desk(databases, tmp_path, suite.chance, share) as found:
            made = await storm(suite, found, 200, await found.route("one"))
            wrong = against(made, await found.total(ALICE), alone=True)
            assert any(word in each for each in wrong), wrong
