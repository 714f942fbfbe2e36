"""What the rest of context asks of an index, and what both backends promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.context.domain.conditions import Plain
from services.context.domain.entries import Found, Payload
from services.context.text.bm25 import Sparse

WORDS = "words"
# What filters ask most; other fields are looked up in what a filter on these leaves over.
KEYWORDS = ("kind", "space", "readers", "document_id", "memory_id", "collection")
NUMBERS = ("until",)
# Where an entry is read from: all of what is kept with it that a search gives.
PLACES = ("kind", "passage_id", "memory_id", "space")


@dataclass(frozen=True, slots=True)
class Point:
    """An entry with its vectors, as an index keeps it."""

    entry_id: str
    payload: Payload
    words: Sparse | None = None
    dense: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Backend(Protocol):
    """Shelves of points, one of which serves. Raises Unavailable where it does not answer.

    What was acknowledged survives the end of every process. Operations on a shelf take effect in
    the order in which they were acknowledged; each may be repeated.
    """

    name: str

    async def shelves(self) -> tuple[str, Sequence[str]]:
        """The shelf that serves, empty where none does, and all there are."""
        ...

    async def create(self, shelf: str) -> None:
        """Make an empty shelf, unless it is there."""
        ...

    async def serve(self, shelf: str) -> None:
        """Let this shelf serve."""
        ...

    async def drop(self, shelf: str) -> None:
        """Remove a shelf that does not serve, if it is there."""
        ...

    async def upsert(self, shelf: str, points: Sequence[Point]) -> None:
        """Put points on a shelf, in place of those with their ids."""
        ...

    async def delete(self, shelf: str, condition: Plain) -> None:
        """Take points off a shelf."""
        ...

    async def search(
        self, shelf: str, using: str, vector: Sparse | Sequence[float], condition: Plain, limit: int
    ) -> Sequence[Found]:
        """The points nearest to a vector among those that a condition holds for, best first.

        Of what is kept with them they have `PLACES` alone.

        Of a sparse vector the terms are weighted by how rare they are in the tenant's own texts:
        `condition` must begin with the tenant, as `of_tenant` makes it.
        """
        ...

    async def payloads(
        self, shelf: str, entry_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """What is kept with points, of those that are there."""
        ...

    async def scroll(self, shelf: str, condition: Plain, limit: int) -> Sequence[Found]:
        """Some points that a condition holds for, in no order, with score 0."""
        ...

    async def count(self, shelf: str, condition: Plain) -> int:
        """How many points a condition holds for."""
        ...

    async def add_space(self, shelf: str, using: str, size: int) -> None:
        """Make room for dense vectors of a name, unless it is there."""
        ...

    async def set_vectors(
        self, shelf: str, using: str, vectors: Mapping[str, Sequence[float]]
    ) -> None:
        """Give points dense vectors; those that are gone meanwhile stay so."""
        ...
