"""Clients that ask and keep what they were told, through every fault, until each run has ended."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiohttp
import grpc
from google.protobuf import json_format
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2

from services.runtime.errors import Code, PlexusError
from tests.e2e.callers import Caller, Grpc
from tests.faults.suite import Suite

PROCESS = "agents.v1.AgentsService/Process"
WATCH = "agents.v1.AgentsService/WatchRun"
TERMINAL = {"run_completed", "run_failed", "run_cancelled"}
# How a call ends that did not succeed; the last two are REST's.
NOT_NOW = (PlexusError, json_format.ParseError, aiohttp.ClientError, TimeoutError)
# What a client may meet while something is away. Everything else is no way to say so.
_MAY_BE = {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}
# What no caller should read: names of what is under us, and what such libraries say.
_RAW = re.compile(
    r"asyncpg|sqlalchemy|sqlite|postgres|psycopg|server closed"
    r"|connection (was|is|does|refused|lost)|transaction|Traceback|Error\b|\.py\b|socket|Errno",
    re.IGNORECASE,
)
# grpc's own words, in the client: for a stream that the gateway cut with its replica, and for a
# gateway that is not there.
_CUT = re.compile(
    r"Received RST_STREAM|Stream removed|Socket closed|Connection reset|failed to connect to all"
)
# As people and libraries do: not at once, and not all at the same moment.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.4


class Eager(Grpc):
    """gRPC that looks again soon for a gateway that was away; left alone it waits ever longer."""

    def __init__(self, url: str) -> None:
        self.token = ""
        pauses = [(f"grpc.{name}_reconnect_backoff_ms", 200) for name in ("initial", "min", "max")]
        self._channel = grpc.aio.insecure_channel(url.removeprefix("http://"), pauses)


@dataclass
class Findings:
    """What should not have been, by its kind; and what was met on the way."""

    suite: Suite
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str) -> None:
        """Something is wrong."""
        self.kinds[kind] += 1
        self.examples.setdefault(kind, text)
        self.suite.note("found", kind=kind, text=text)

    def refused(self, error: Exception, during: str) -> None:
        """A call did not succeed: whether it may end in this way."""
        code, text = _of(error)
        self.refusals[f"{code}: {text[:90]}"] += 1
        self.suite.note("refused", during=during, code=code, text=text)
        if isinstance(error, TimeoutError):
            self.add("hangs", f"{during}: {error!r}")
        if not isinstance(error, PlexusError) or _CUT.search(text):
            return
        self.read(text, during)
        if error.code not in _MAY_BE:
            self.add("refused", f"{during}: {code} {text}")

    def read(self, text: str, during: str) -> None:
        """Look through what the product says to a caller."""
        if _RAW.search(text):
            self.add("raw text", f"{during}: {text}")

    def require_none(self) -> None:
        """Fail with an example of each."""
        assert not self.kinds, f"{dict(self.kinds)}: {self.examples}"


def _of(error: Exception) -> tuple[str, str]:
    """An error's status, and its text as it came."""
    cause = error.__cause__
    if isinstance(cause, grpc.aio.AioRpcError):
        return cause.code().name, cause.details() or ""
    if isinstance(error, PlexusError):
        return error.code.name, error.message
    return type(error).__name__, str(error)


@dataclass
class Told:
    """What one client asked, and everything it saw of the answer.

    Attributes:
        silences: After each break, the seconds until the next event came.
    """

    key: str
    session_id: str = ""
    seen: list[run_pb2.RunEvent] = field(default_factory=list)
    breaks: int = 0
    silences: list[float] = field(default_factory=list)
    _broke: float | None = None

    @property
    def input(self) -> str:
        """What it asked."""
        return f"Tell me about {self.key}."

    @property
    def ended(self) -> bool:
        """Whether it saw the last event."""
        return bool(self.seen) and self.seen[-1].WhichOneof("event") in TERMINAL

    @property
    def text(self) -> str:
        """The answer as far as it saw it."""
        return "".join(event.text_delta.text for event in self.seen)

    def take(self, event: run_pb2.RunEvent, found: Findings) -> None:
        """One event more."""
        if self._broke is not None:
            self.silences.append(time.monotonic() - self._broke)
            self._broke = None
        if event.sequence != len(self.seen) + 1:
            found.add("gap", f"{self.key}: {event.sequence} after {len(self.seen)}")
        if self.seen and event.run_id != self.seen[0].run_id:
            found.add("other run", f"{self.key}: {event.run_id} after {self.seen[0].run_id}")
        self.seen.append(event)

    def broke(self) -> None:
        """The stream ended before the run."""
        self.breaks += 1
        if self._broke is None:
            self._broke = time.monotonic()


async def follow(
    caller: Caller,
    told: Told,
    found: Findings,
    until: Callable[[], bool] = lambda: False,
    patience: float | None = None,
) -> None:
    """Ask, and come back after every break, until the run has ended or nobody cares any more.

    Args:
        caller: Who asks.
        told: What is asked, and what is seen of the answer.
        found: Where what is wrong goes.
        until: Whether nobody cares any more.
        patience: After how many silent seconds a client leaves a stream and asks again.
    """
    pause = _FIRST_PAUSE
    while not told.ended and not until():
        known = len(told.seen)
        try:
            await _listen(caller, told, found, patience)
        except NOT_NOW as error:
            found.refused(error, "Watch" if told.seen else "Process")
        if not told.ended:
            told.broke()
            pause = _FIRST_PAUSE if len(told.seen) > known else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(random.uniform(pause / 2, pause))


async def _listen(caller: Caller, told: Told, found: Findings, patience: float | None) -> None:
    if told.seen:
        rest = agents.WatchRunRequest(
            run_id=told.seen[0].run_id, after_sequence=told.seen[-1].sequence
        )
        events = caller.stream(WATCH, rest, run_pb2.RunEvent)
    else:
        # Whether it was accepted before the break nobody knows: that is what the key is for.
        asked = agents.ProcessRequest(
            input=told.input, idempotency_key=told.key, session_id=told.session_id
        )
        events = caller.stream(PROCESS, asked, run_pb2.RunEvent)
    clock = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience) as limit:
            async for event in events:
                told.take(event, found)
                if patience is not None:
                    limit.reschedule(clock.time() + patience)
    except TimeoutError:
        if not limit.expired():
            raise


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of them do not pass."""
    known = sorted(values)
    return known[min(len(known) - 1, int(len(known) * share))] if known else 0.0


def spread(values: list[float]) -> str:
    """A distribution in a few numbers."""
    if not values:
        return "none"
    parts = (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    text = ", ".join(f"{name} {percentile(values, share):.2f} s" for name, share in parts)
    return f"{text} of {len(values)}"
