"""One turn of a conversation: ask, show the answer as it is written, and stop when told to."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import click
import grpc
from plexus.agents.v1.agents_service_pb2 import ProcessRequest
from plexus.agents.v1.run_pb2 import RunCitation, RunEvent
from plexus.context.v1.source_pb2 import Source
from plexus.errors.v1.errors_pb2 import ErrorReason

from services.cli import output
from services.cli.client import Client
from services.cli.errors import Problem
from services.cli.messages import to_json
from services.cli.runs import PATIENCE_SECONDS, RunStream

# After Ctrl-C: how long to wait for a run's name, and for the event that says it has ended.
_NAME_SECONDS = 3.0
_END_SECONDS = 3.0

# Characters of a quote that a terminal shows.
_LONGEST_QUOTE = 200


class Outcome(Enum):
    """How a turn ended; the value is the exit status."""

    COMPLETED = 0
    FAILED = 1
    INTERRUPTED = 130


@dataclass(frozen=True)
class Turn:
    """What a turn came to."""

    outcome: Outcome
    session_id: str


class Printer:
    """Shows events: the answer as plain text, or every event as a line of JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._midline = False
        self._cited: dict[str, RunCitation] = {}

    def show(self, event: RunEvent) -> Outcome | None:
        """Show one event; returns how the run ended if it is the last."""
        if self._as_json:
            click.echo(to_json(event))
        kind = event.WhichOneof("event")
        if kind == "text_delta" and not self._as_json:
            output.write(event.text_delta.text)
            self._midline = not event.text_delta.text.endswith("\n")
        elif kind == "citation":
            source = event.citation.source
            self._cited.setdefault(source.passage_id or source.memory_id, event.citation)
        elif kind == "run_completed":
            return self._completed(truncated=event.run_completed.truncated)
        elif kind == "run_failed":
            self.note(
                f"Error: {event.run_failed.message or 'The run failed.'} "
                f"({_reason(event.run_failed.reason)})"
            )
            return Outcome.FAILED
        elif kind == "run_cancelled":
            self.note(f"The run was cancelled by {event.run_cancelled.cancelled_by}.")
            return Outcome.FAILED
        return None

    def note(self, text: str) -> None:
        """A remark on stderr, on a line of its own."""
        self.end_line()
        output.note(text)

    def end_line(self) -> None:
        """Finish a line that was begun, so that what follows starts a new one."""
        if self._midline:
            self._midline = False
            output.write("\n")

    def remark(self, text: str) -> None:
        """A remark in the middle of the answer: it must not add to what stdout holds."""
        output.note(f"\n[{text}]" if self._midline and output.on_terminal() else f"[{text}]")

    def _completed(self, *, truncated: bool) -> Outcome:
        self.end_line()
        if truncated:
            output.note("The answer is cut: the model reached its limit.")
        if not self._as_json:
            for citation in self._cited.values():
                output.note(f"Source: {_named(citation.source)}: “{_short(citation.quote)}”")
        self._cited.clear()
        return Outcome.COMPLETED


async def ask(
    client: Client,
    text: str,
    *,
    agent_id: str = "",
    session_id: str = "",
    as_json: bool = False,
    patience: float = PATIENCE_SECONDS,
) -> Turn:
    """Ask an agent and show its answer. Ctrl-C cancels the run; a second one stops waiting.

    Raises:
        Failure: The connection did not come back, or there is no login.
        AioRpcError: The request was refused.
    """
    request = ProcessRequest(
        input=text, agent_id=agent_id, session_id=session_id, idempotency_key=uuid.uuid4().hex
    )
    printer = Printer(as_json=as_json)
    stream = RunStream(client, request, printer.remark, patience)
    reading = asyncio.create_task(_read(stream, printer))
    try:
        with _interrupts() as interrupt:
            if await _unless(interrupt, reading):
                return Turn(reading.result(), stream.session_id)
            stopping = asyncio.create_task(_stop(stream, reading, printer))
            if await _unless(interrupt, stopping):
                stopping.result()
            await _end(stopping)
            return Turn(Outcome.INTERRUPTED, stream.session_id)
    finally:
        await _end(reading)
        printer.end_line()


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for it; what it ended with is of no interest any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def _read(stream: RunStream, printer: Printer) -> Outcome:
    async with aclosing(stream.events()) as events:
        async for event in events:
            outcome = printer.show(event)
            if outcome is not None:
                return outcome
    raise AssertionError("a run's events end with a terminal one")


async def _stop(stream: RunStream, reading: asyncio.Task[Outcome], printer: Printer) -> None:
    """Cancel the run and wait for its end, each for a while."""
    printer.note("Cancelling the run… (Ctrl-C again: stop waiting)")
    try:
        # A connection that is away brings no name within that time.
        async with asyncio.timeout(0 if stream.lost else _NAME_SECONDS):
            await stream.started.wait()
        await stream.cancel()
    except TimeoutError:
        printer.note("The run had not begun to answer; it may still do so.")
        return
    except grpc.aio.AioRpcError as error:
        message = Problem.of(error).message or "no answer"
        printer.note(
            f"The run could not be cancelled ({message}). Try again with: plexus call "
            f'agents/CancelRun --json \'{{"run_id": "{stream.run_id}"}}\''
        )
        return
    await asyncio.wait({reading}, timeout=_END_SECONDS)


@contextmanager
def _interrupts() -> Iterator[Callable[[], asyncio.Task[None]]]:
    """Receive Ctrl-C instead of ending by it; gives what waits for the next one."""
    presses: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, presses.put_nowait, None)
    try:
        yield lambda: asyncio.create_task(presses.get())
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _unless(interrupt: Callable[[], asyncio.Task[None]], task: asyncio.Task[Any]) -> bool:
    """Wait for a task; False when Ctrl-C came first."""
    pressed = interrupt()
    try:
        await asyncio.wait({task, pressed}, return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        pressed.cancel()


def _named(source: Source) -> str:
    """What a source is called, and where in it to look."""
    if not source.document_id:
        return f"a memory in {source.space}" + (f", {source.title}" if source.title else "")
    page = [f"page {source.page}"] if source.page else []
    return ", ".join([source.title or source.document_id, *source.headings[-1:], *page])


def _short(quote: str) -> str:
    line = " ".join(quote.split())
    return line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 1] + "…"


def _reason(number: ErrorReason.ValueType) -> str:
    try:
        return ErrorReason.Name(number).removeprefix("ERROR_REASON_")
    except ValueError:
        return str(number)  # of a later version
