"""What the protocol's use cases share: replies, and what they ask of other modules."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.interop.domain import writing
from services.interop.domain.values import (
    Asked,
    AskedVectors,
    Broken,
    Event,
    Named,
    RunView,
    Usage,
)
from services.runtime import log
from services.runtime.errors import InvalidRequest, PlexusError

_logger = log.get(__name__)
AGENT = "agent/"
JSON = "application/json"
EVENTS = "text/event-stream"
_OK = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """A piece of a reply. Of the first one, status, type and wait are the reply's.

    Attributes:
        retry_after: Seconds after which to ask again; None where that is not known.
    """

    data: bytes
    status: int = _OK
    content_type: str = JSON
    retry_after: float | None = None


class Models(Protocol):
    """Language models."""

    async def listed(self) -> list[Named]:
        """Every model and route."""
        ...

    def answer(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """An answer as it is written."""
        ...

    async def vectors(self, asked: AskedVectors) -> tuple[str, Sequence[Sequence[float]], Usage]:
        """Vectors, and the model that made them."""
        ...


class Agents(Protocol):
    """Agents."""

    async def listed(self) -> list[Named]:
        """Every agent of the tenant."""
        ...

    async def find(self, name: str) -> str:
        """The id of an agent by what a request calls it."""
        ...

    def answer(
        self, agent_id: str, asked: Asked, text: str
    ) -> AsyncGenerator[Event | Broken, None]:
        """A run as it goes; leaving it leaves it to itself."""
        ...

    def watch(self, run: RunView) -> AsyncGenerator[Event | Broken, None]:
        """A run from its beginning to its end."""
        ...

    async def run(self, run_id: str) -> RunView:
        """A run as it stands."""
        ...

    async def cancel(self, run_id: str) -> RunView:
        """A run after somebody wanted it to end."""
        ...


def failed(error: PlexusError, *, begun: bool) -> Reply:
    """The reply for an error, which is an event where the reply has begun."""
    status, body = writing.error_of(error)
    _logger.info("openai_error", status=status, reason=error.reason)
    if begun:
        # The status has gone already; without the mark of the end nothing looks whole.
        return Reply(writing.line(body), content_type=EVENTS)
    return Reply(writing.written(body), status, retry_after=error.retry_after)


def require_plain(asked: Asked) -> None:
    """Refuse what an agent decides for itself.

    Raises:
        InvalidRequest: Something of it is asked for.
    """
    decided: dict[str, object] = {
        "tools": asked.tools,
        "response_format": asked.answer_format,
        "stop": asked.stop,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "max_completion_tokens": asked.max_output_tokens,
    }
    for name, value in decided.items():
        if value not in (None, ()):
            raise InvalidRequest.field(name, "is the agent's own to decide; leave it out")
    last = asked.messages[-1]
    if last.role != "user" or last.images:
        raise InvalidRequest.field("messages", "must end with a user's text where an agent answers")


def told(asked: Asked) -> str:
    """What an agent is given: the last message, and what came before it unless it knows that."""
    *before, last = asked.messages
    if asked.session_id or not before:
        return last.text
    said = "\n".join(f"{each.role}: {each.text}" for each in before if each.text)
    return f"The conversation so far:\n{said}\n\n{last.text}"
