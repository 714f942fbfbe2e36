"""What context needs of other modules. Their stubs are behind these, in `remote`.

Where a module does not answer, or cannot do it yet, all of them raise Unavailable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.context.domain.entries import Entry
from services.context.domain.sources import Change, Source


class Superseded(Exception):
    """What was to be read changed meanwhile: it comes again in its feed."""


class Feed(Protocol):
    """The changes of one module, in one order without gaps."""

    name: str

    async def changes(
        self, after: int, limit: int, tenant_id: str = ""
    ) -> tuple[Sequence[Change], int]:
        """Changes after a position, of all tenants or of one; and the newest position of all."""
        ...

    def watch(self) -> AsyncIterator[int]:
        """The newest position, whenever it rises."""
        ...

    def entries(self, change: Change) -> AsyncIterator[Sequence[Entry]]:
        """What is there now of what changed, some at a time.

        Raises:
            Superseded: It changed again.
        """
        ...


class Documents(Protocol):
    """Passages as the current caller may read them."""

    async def passages(self, passage_ids: Sequence[str]) -> Sequence[Source]:
        """Those that are there; at most 1,000."""
        ...

    async def document(self, document_id: str, limit: int) -> tuple[Sequence[Source], bool]:
        """The first passages of a document, and whether there are more.

        Raises:
            NotFound: There is no such document.
        """
        ...


class Memories(Protocol):
    """Memories as the current caller may read them."""

    async def spaces(self) -> Sequence[str]:
        """The spaces that it may read."""
        ...

    async def memories(
        self, space: str, memory_ids: Sequence[str], at: int | None
    ) -> Sequence[Source]:
        """Those of a space that are there, now or at a moment; at most 1,000."""
        ...

    async def space(self, space: str, limit: int) -> tuple[Sequence[Source], bool]:
        """Memories of a space, and whether there are more.

        Raises:
            NotFound: There is no such space.
        """
        ...

    async def reinforce(self, memory_ids: Sequence[str]) -> None:
        """Say that they were of use; at most 100."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A message of a conversation."""

    source: Source
    by_agent: bool


@dataclass(frozen=True, slots=True)
class Window:
    """The newest messages of a conversation, oldest first, and how many are older."""

    lines: Sequence[Line] = ()
    omitted: int = 0


class History(Protocol):
    """Conversations of the current caller's tenant."""

    async def window(self, session_id: str, max_tokens: int) -> Window:
        """The newest messages that fit.

        Raises:
            NotFound: There is no such session.
        """
        ...

    async def summary_before(self, session_id: str, message_id: str) -> str:
        """What was said before a message, in short; empty where there is no summary."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote."""

    model: str
    text: str


class Models(Protocol):
    """Language models, as the current caller may use them."""

    async def write(
        self,
        instructions: str,
        sources: Sequence[str],
        question: str,
        *,
        model: str = "",
        task_class: str = "",
        json: bool = False,
        max_tokens: int = 2_000,
    ) -> Written:
        """What a model answers to a question about some texts.

        Raises:
            NotFound: There is no such model.
            Unavailable: It did not answer.
        """
        ...

    async def embedding_model(self) -> str:
        """The tenant's model of embeddings; empty where it has none."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Texts as vectors; at most 64."""
        ...
