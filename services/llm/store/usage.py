"""Sums of the ledger, for reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, tuple_

from services.llm.tables import usage_days
from services.runtime.db import Connection

COUNTS = ("calls", "failed_calls", "input_tokens", "output_tokens", "cost", "estimated_calls")


@dataclass(frozen=True, slots=True)
class Sums:
    """One group of a report: what it was grouped by, and the sums in the order of COUNTS."""

    by: dict[str, str]
    counts: dict[str, int]


async def report(
    connection: Connection,
    tenant_id: str,
    columns: Sequence[str],
    days: tuple[str, str],
    size: int,
    after: Sequence[str],
) -> list[Sums]:
    """Sums by some of `day`, `model`, `agent_id` and `user_id`, in that order, from behind a group.

    Args:
        connection: A transaction.
        tenant_id: Whose.
        columns: By what; none gives one row.
        days: The first and the last.
        size: How many rows.
        after: The group before the page; empty for the first.
    """
    by = [usage_days.c[name] for name in columns]
    query = select(*by, *(func.sum(usage_days.c[name]).label(name) for name in COUNTS)).where(
        usage_days.c.tenant_id == tenant_id, usage_days.c.day.between(*days)
    )
    if by:
        query = query.group_by(*by).order_by(*by)
    if after:
        query = query.where(tuple_(*by) > tuple(after))
    rows: Any = await connection.execute(query.limit(size))
    return [
        Sums(
            {name: getattr(row, name) for name in columns},
            {name: int(getattr(row, name) or 0) for name in COUNTS},
        )
        for row in rows
    ]
