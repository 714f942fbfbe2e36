"""Agents, runs, events, and the rules between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, ClassVar

from services.runtime.errors import Aborted, AlreadyExists, PlexusError

DEFAULT_NAME = "Assistant"
DEFAULT_INSTRUCTIONS = (
    "You are a helpful assistant. Answer plainly and to the point. Say so when you do not know."
)


class RunState(IntEnum):
    """Where a run stands; the numbers are the contract's."""

    RUNNING = 1
    COMPLETED = 2
    FAILED = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class Agent:
    """Instructions and the model that follows them. Times are microseconds."""

    agent_id: str
    tenant_id: str
    display_name: str
    instructions: str
    model: str
    is_default: bool
    create_time: int


@dataclass(frozen=True, slots=True)
class Started:
    """The run was accepted and its input kept."""

    kind: ClassVar[str] = "run_started"
    session_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    kind: ClassVar[str] = "text_delta"
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """What a citation points to: `plexus.context.v1.Source`. The time is microseconds."""

    kind: int
    title: str
    text: str
    document_id: str = ""
    passage_id: str = ""
    page: int = 0
    headings: tuple[str, ...] = ()
    start: int = 0
    end: int = 0
    memory_id: str = ""
    version_id: str = ""
    space: str = ""
    message_id: str = ""
    uri: str = ""
    collection: str = ""
    time: int | None = None
    trust: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """What stands behind a part of the answer; spans are `(from, to)` in code points."""

    kind: ClassVar[str] = "citation"
    source: Source
    cited_in: tuple[int, int]
    span: tuple[int, int]
    quote: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the model took, in tokens."""

    kind: ClassVar[str] = "usage"
    input_tokens: int
    output_tokens: int
    model: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer is whole. Terminal."""

    kind: ClassVar[str] = "run_completed"
    message_id: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer ended early; `reason` is a name of the contract's reasons. Terminal."""

    kind: ClassVar[str] = "run_failed"
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancelled it. Terminal."""

    kind: ClassVar[str] = "run_cancelled"
    cancelled_by: str


Happening = Started | TextDelta | Citation | Usage | Completed | Failed | Cancelled
Ending = Completed | Failed | Cancelled
_KINDS: Mapping[str, type[Happening]] = {
    each.kind: each for each in (Started, TextDelta, Citation, Usage, Completed, Failed, Cancelled)
}
_END_STATES: Mapping[type[Happening], RunState] = {
    Completed: RunState.COMPLETED,
    Failed: RunState.FAILED,
    Cancelled: RunState.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run, in its place."""

    sequence: int
    time: int
    happening: Happening

    @property
    def is_last(self) -> bool:
        """Whether the run ends with it."""
        return type(self.happening) in _END_STATES


def to_data(happening: Happening) -> dict[str, object]:
    """The form in which an event is stored, beside its kind."""
    return asdict(happening)


def from_data(kind: str, data: Mapping[str, object]) -> Happening:
    """An event from its stored form."""
    if kind == Citation.kind:
        return _citation(**data)  # type: ignore[arg-type]
    return _KINDS[kind](**data)  # type: ignore[arg-type]


def _citation(
    source: Mapping[str, Any], cited_in: list[int], span: list[int], quote: str
) -> Citation:
    # JSON knows no tuples.
    known = Source(**{**source, "headings": tuple(source["headings"])})
    return Citation(known, (cited_in[0], cited_in[1]), (span[0], span[1]), quote)


def end_state(happening: Happening) -> RunState | None:
    """The state that an event puts its run into, if it ends it."""
    return _END_STATES.get(type(happening))


@dataclass(frozen=True, slots=True)
class Run:
    """One answer of an agent."""

    run_id: str
    tenant_id: str
    user_id: str
    agent_id: str
    session_id: str
    input: str
    state: RunState
    output: str
    failure: Failed | None
    usage: Usage | None
    last_sequence: int
    create_time: int
    end_time: int | None

    @property
    def input_message_id(self) -> str:
        """The message that keeps the input: repeating the append changes nothing."""
        return f"msg_{self.run_id.removeprefix('run_')}_in"

    @property
    def output_message_id(self) -> str:
        """The message that keeps the answer."""
        return f"msg_{self.run_id.removeprefix('run_')}_out"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to accept, with its first event, under a key that its caller may repeat."""

    run: Run
    idempotency_key: str
    digest: str
    owner: str

    @property
    def started(self) -> Event:
        """The event that every run begins with."""
        run = self.run
        return Event(1, run.create_time, Started(run.session_id, run.agent_id))


def text_of(events: list[Event]) -> str:
    """What was answered in some events."""
    return "".join(
        event.happening.text for event in events if isinstance(event.happening, TextDelta)
    )


class RunTaken(Aborted):
    """Another process carries the run now; this one lets go of it."""

    def __init__(self) -> None:
        super().__init__("The run is carried elsewhere. Watch it again.")


def session_busy(run_id: str) -> PlexusError:
    """The session has a run under way."""
    return Aborted(
        "The session has a run under way. Await it or cancel it.",
        reason="SESSION_BUSY",
        metadata={"run_id": run_id},
    )


def key_reused() -> PlexusError:
    """The idempotency key stands for another request."""
    return AlreadyExists(
        "The idempotency_key was used with another request.", reason="IDEMPOTENCY_KEY_REUSED"
    )
