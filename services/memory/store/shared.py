"""What the functions of the store have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Table

from services.runtime.db import Connection, upsert

_AT_ONCE = 500
T = TypeVar("T")


class Place(NamedTuple):
    """A space of a tenant."""

    tenant_id: str
    space: str

    def of(self, table: Table) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """The rows of it."""
        return (table.c.tenant_id == self.tenant_id, table.c.space == self.space)

    @property
    def values(self) -> dict[str, str]:
        """What is the same in all rows of it."""
        return {"tenant_id": self.tenant_id, "space": self.space}


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """So many as one statement takes."""
    left = iter(items)
    while some := list(itertools.islice(left, _AT_ONCE)):
        yield some


async def add(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert those rows that are not there."""
    insert = upsert(connection.dialect.name, table).on_conflict_do_nothing()
    for some in batches(rows):
        await connection.execute(insert, some)
