"""What is kept, read from PostgreSQL itself, and how it compares with what clients were told."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from plexus.agents.v1 import run_pb2
from plexus.errors.v1 import errors_pb2

from services.agents.convert import to_event
from services.agents.domain import Event, from_data
from tests.faults.told import TERMINAL, Findings, Told

_RUNS = "SELECT run_id, session_id, idempotency_key, state, output FROM agents.agents_runs"
_EVENTS = (
    "SELECT run_id, sequence, time, kind, data FROM agents.agents_run_events "
    "ORDER BY run_id, sequence"
)
_MESSAGES = (
    "SELECT session_id, author, text, run_id, partial FROM history.history_messages "
    "ORDER BY session_id, place"
)


@dataclass
class Stored:
    """Everything that is kept of runs."""

    runs: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    events: dict[str, list[run_pb2.RunEvent]] = field(default_factory=lambda: defaultdict(list))
    messages: dict[str, list[tuple[int, str, str, bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @classmethod
    async def read(cls, url: str) -> Stored:
        """All of it, past row security."""
        found = cls()
        connection = await asyncpg.connect(url)
        try:
            for row in await connection.fetch(_RUNS):
                found.runs[row["idempotency_key"]].append(row)
            for row in await connection.fetch(_EVENTS):
                happening = from_data(row["kind"], json.loads(row["data"]))
                event = Event(row["sequence"], row["time"], happening)
                found.events[row["run_id"]].append(to_event(row["run_id"], event))
            for row in await connection.fetch(_MESSAGES):
                found.messages[row["session_id"]].append(
                    (row["author"], row["text"], row["run_id"], row["partial"])
                )
        finally:
            await connection.close()
        return found


def judge(told: Iterable[Told], stored: Stored, whole: str, found: Findings) -> Counter[str]:
    """Compare what clients saw with what is kept; returns how runs ended.

    Args:
        told: The clients.
        stored: What is kept.
        whole: What the model answers to everybody.
        found: Where differences go.
    """
    endings: Counter[str] = Counter()
    for each in told:
        if not each.ended:
            found.add("no end", f"{each.key}: {len(each.seen)} events")
        if each.seen:
            endings[_judge_run(each, stored, whole, found)] += 1
    return endings


def _judge_run(told: Told, stored: Stored, whole: str, found: Findings) -> str:
    key, run_id = told.key, told.seen[0].run_id
    runs = stored.runs.get(key, [])
    if len(runs) != 1:
        found.add("twice" if runs else "lost", f"{key}: {len(runs)} runs")
    kept = stored.events.get(run_id, [])
    if kept != told.seen:
        found.add("lost", f"{key}: saw {_short(told.seen)}, kept is {_short(kept)}")
    if [event.sequence for event in kept] != list(range(1, len(kept) + 1)):
        found.add("gap", f"{key}: {[event.sequence for event in kept]}")
    kinds = [str(event.WhichOneof("event")) for event in kept]
    if [kind in TERMINAL for kind in kinds] != [False] * (len(kinds) - 1) + [True]:
        found.add("no one end", f"{key}: {kinds}")
    last = kept[-1] if kept else told.seen[-1]
    complete = last.HasField("run_completed")
    if not whole.startswith(told.text) or (complete and told.text != whole):
        found.add("twice", f"{key}: {told.text}")
    if runs and runs[0]["output"] != told.text:
        found.add("lost", f"{key}: the run has {runs[0]['output']}, the client {told.text}")
    ending = str(last.WhichOneof("event"))
    if last.HasField("run_failed"):
        ending = f"failed: {last.run_failed.message}"
        found.read(last.run_failed.message, key)
    # The only run that may be missing from its session says that history was away for too long.
    away = last.run_failed.reason == errors_pb2.ERROR_REASON_UNAVAILABLE
    return ending + _judge_history(told, stored, complete, away, found)


def _judge_history(told: Told, stored: Stored, complete: bool, away: bool, found: Findings) -> str:
    """The session holds the question once, and the answer once, as far as it came."""
    run_id, text = told.seen[0].run_id, told.text
    messages = stored.messages.get(told.seen[0].run_started.session_id, [])
    own = [(author, said, partial) for author, said, run, partial in messages if run == run_id]
    answer = [(2, text, not complete)] if text or complete else []
    expected = [(1, told.input, False), *answer]
    if own == expected:
        return ""
    if away and own == expected[: len(own)]:
        return " (not in history)"
    authors = Counter(author for author, *_ in own)
    kind = "twice in history" if max(authors.values(), default=0) > 1 else "not in history"
    found.add(kind, f"{told.key}: {own} and not {expected}")
    return ""


def asked_twice(bodies: Iterable[Mapping[str, Any]], found: Findings) -> int:
    """Whether the model was paid for the same question twice; returns how often it was asked."""
    questions = Counter(body["messages"][-1]["content"] for body in bodies)
    for question, count in questions.items():
        if count > 1:
            found.add("paid twice", f"{question}: {count}")
    return sum(questions.values())


def _short(events: list[run_pb2.RunEvent]) -> list[str]:
    return [f"{each.sequence}:{each.WhichOneof('event')}" for each in events[-4:]]
