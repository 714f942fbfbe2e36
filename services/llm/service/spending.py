"""Usage reports and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from services.llm import store
from services.llm.domain.configuration import (
    MAX_BUDGETS,
    Budget,
    Period,
    Spent,
    Subject,
    day_of,
    require_etag,
    too_many,
)
from services.llm.store.usage import Sums
from services.runtime import clock
from services.runtime.context import Principal
from services.runtime.db import Database
from services.runtime.errors import InvalidRequest, NotFound
from services.runtime.ids import new_id
from services.runtime.replies import Repeatable, Replies

_USUAL_DAYS = 30
_MOST_DAYS = 366


class Spending:
    """What was spent, and what may be."""

    def __init__(self, database: Database, replies: Replies) -> None:
        self._database = database
        self._replies = replies

    async def report(
        self,
        who: Principal,
        columns: Sequence[str],
        days: tuple[str, str],
        size: int,
        after: Sequence[str],
    ) -> list[Sums]:
        """Usage by some columns, between two days, either of which may be empty.

        Raises:
            InvalidRequest: A day is none, or they are too far apart.
        """
        async with self._database.read() as connection:
            return await store.usage.report(
                connection, who.tenant_id, columns, _days(*days), size, after
            )

    async def page(
        self, who: Principal, size: int, before: str | None
    ) -> list[tuple[Budget, Spent]]:
        """The tenant's budgets, newest first, from behind one, with what is spent of each."""
        today = day_of(clock.now())
        async with self._database.read() as connection:
            found = await store.budgets.page(connection, who.tenant_id, size, before)
            return [(each, await store.budgets.spent(connection, each, today)) for each in found]

    async def create(
        self,
        who: Principal,
        subject: Subject,
        subject_id: str,
        period: Period,
        bounds: tuple[int, int],
        call: Repeatable,
    ) -> tuple[Budget, Spent]:
        """Bound what is spent, by cost and tokens.

        Raises:
            AlreadyExists: NAME_TAKEN, or the idempotency key stands for another request.
            InvalidRequest: The subject is not named, or is and must not be.
            ResourceExhausted: The tenant has as many as it can have.
        """
        if bool(subject_id) is (subject is Subject.TENANT):
            raise InvalidRequest.field("subject_id", "must name a user or an agent, and no tenant")
        budget = Budget(
            new_id("bdg"), who.tenant_id, subject, subject_id, period, *bounds, version=1
        )
        async with self._database.transaction() as connection:
            kept = await self._replies.find(connection, call)
            first = None
            if kept is not None:
                first = await store.budgets.get(connection, who.tenant_id, kept.decode())
            if first is None:
                if await store.budgets.count(connection, who.tenant_id) >= MAX_BUDGETS:
                    raise too_many("budgets", "budgets", MAX_BUDGETS)
                await store.budgets.add(connection, budget)
                if kept is None:
                    await self._replies.keep(connection, call, budget.budget_id.encode())
            found = first or budget
            return found, await store.budgets.spent(connection, found, day_of(clock.now()))

    async def update(
        self, who: Principal, budget_id: str, bounds: tuple[int, int], etag: str
    ) -> tuple[Budget, Spent]:
        """Change what one allows.

        Raises:
            NotFound: There is no such budget.
            Aborted: It changed since the etag was read.
        """
        async with self._database.transaction() as connection:
            old = await store.budgets.get(connection, who.tenant_id, budget_id)
            if old is None:
                raise NotFound.of("budget")
            new = replace(old, max_cost=bounds[0], max_tokens=bounds[1])
            if new != old:
                require_etag(etag, old.etag)
                new = replace(new, version=old.version + 1)
                await store.budgets.replace(connection, new)
            return new, await store.budgets.spent(connection, new, day_of(clock.now()))

    async def delete(self, who: Principal, budget_id: str) -> None:
        """Remove one.

        Raises:
            NotFound: There is no such budget.
        """
        async with self._database.transaction() as connection:
            if not await store.budgets.remove(connection, who.tenant_id, budget_id):
                raise NotFound.of("budget")


def _days(start: str, end: str) -> tuple[str, str]:
    last = _day(end, "end_day") if end else date.fromisoformat(day_of(clock.now()))
    first = _day(start, "start_day") if start else last - timedelta(days=_USUAL_DAYS)
    if not timedelta() <= last - first <= timedelta(days=_MOST_DAYS):
        raise InvalidRequest.field(
            "end_day", f"must not be before the first, nor {_MOST_DAYS} days behind it"
        )
    return first.isoformat(), last.isoformat()


def _day(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest.field(field, "must be a day such as 2026-11-21") from None
