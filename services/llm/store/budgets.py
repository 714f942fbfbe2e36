"""Budgets, and what counts for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError

from services.llm.domain.configuration import Budget, Period, Spent, Subject, first_day, name_taken
from services.llm.tables import budgets, calls, spent_days
from services.runtime.db import Connection

# Written out, for an index on some rows serves only a query that says it is about those.
_UNDER_WAY = text("llm_calls.state = 1")
_HOLDING = (
    select(budgets)
    .where(
        tuple_(budgets.c.tenant_id, budgets.c.subject, budgets.c.subject_id).in_(
            bindparam("wanted", expanding=True)
        )
    )
    .order_by(budgets.c.budget_id)
    .with_for_update()
)


async def add(connection: Connection, budget: Budget) -> None:
    """Keep a new budget.

    Raises:
        AlreadyExists: NAME_TAKEN: its subject has one for the period. The transaction cannot go on.
    """
    try:
        await connection.execute(insert(budgets), _columns(budget))
    except IntegrityError as error:
        of = budget.subject_id or "the tenant"
        raise name_taken("budget for the period of", of) from error


async def replace(connection: Connection, budget: Budget) -> None:
    """Keep a budget's next version."""
    same = budgets.c.budget_id == budget.budget_id
    await connection.execute(update(budgets).where(same).values(_columns(budget)))


async def get(connection: Connection, tenant_id: str, budget_id: str) -> Budget | None:
    """A tenant's budget, which stays as it is until the transaction ends."""
    query = select(budgets).where(
        budgets.c.tenant_id == tenant_id, budgets.c.budget_id == budget_id
    )
    row = (await connection.execute(query.with_for_update())).first()
    return None if row is None else _budget(row)


async def all_of(connection: Connection, tenant_id: str) -> list[Budget]:
    """Every budget of a tenant, oldest first."""
    query = select(budgets).where(budgets.c.tenant_id == tenant_id).order_by(budgets.c.budget_id)
    return [_budget(row) for row in await connection.execute(query)]


async def page(
    connection: Connection, tenant_id: str, size: int, before: str | None
) -> list[Budget]:
    """A tenant's budgets, newest first, from behind one."""
    query = select(budgets).where(budgets.c.tenant_id == tenant_id)
    if before:
        query = query.where(budgets.c.budget_id < before)
    found = await connection.execute(query.order_by(budgets.c.budget_id.desc()).limit(size))
    return [_budget(row) for row in found]


async def count(connection: Connection, tenant_id: str) -> int:
    """How many a tenant has."""
    query = select(func.count()).where(budgets.c.tenant_id == tenant_id)
    return int((await connection.execute(query)).scalar_one())


async def remove(connection: Connection, tenant_id: str, budget_id: str) -> bool:
    """Forget a budget; whether it was there."""
    gone = await connection.execute(
        delete(budgets).where(budgets.c.tenant_id == tenant_id, budgets.c.budget_id == budget_id)
    )
    return bool(gone.rowcount)


async def holding(
    connection: Connection, subjects: Iterable[tuple[str, Subject, str]]
) -> list[Budget]:
    """The budgets of some tenants' subjects.

    Nobody else may spend of them until the transaction ends.
    """
    wanted = [(tenant_id, subject.value, of) for tenant_id, subject, of in set(subjects)]
    return [_budget(row) for row in await connection.execute(_HOLDING, {"wanted": wanted})]


async def spent(connection: Connection, budget: Budget, day: str) -> Spent:
    """What was spent of a budget in the period of a day, with what calls under way may take."""
    ended = select(func.sum(spent_days.c.cost), func.sum(spent_days.c.tokens)).where(
        spent_days.c.tenant_id == budget.tenant_id,
        spent_days.c.subject == budget.subject.value,
        spent_days.c.subject_id == budget.subject_id,
        spent_days.c.day.between(first_day(budget.period, day), day),
    )
    under_way = select(func.sum(calls.c.reserved_cost), func.sum(calls.c.reserved_tokens)).where(
        calls.c.tenant_id == budget.tenant_id, _UNDER_WAY
    )
    column = {Subject.USER: calls.c.user_id, Subject.AGENT: calls.c.agent_id}.get(budget.subject)
    if column is not None:
        under_way = under_way.where(column == budget.subject_id)
    found = [(await connection.execute(query)).one() for query in (ended, under_way)]
    return Spent(*(sum(int(row[place] or 0) for row in found) for place in (0, 1)))


def _columns(budget: Budget) -> dict[str, Any]:
    return {
        "budget_id": budget.budget_id,
        "tenant_id": budget.tenant_id,
        "subject": budget.subject.value,
        "subject_id": budget.subject_id,
        "period": budget.period.value,
        "max_cost": budget.max_cost,
        "max_tokens": budget.max_tokens,
        "version": budget.version,
    }


def _budget(row: Row[Any]) -> Budget:
    columns = dict(row._mapping)
    subject, period = Subject(columns.pop("subject")), Period(columns.pop("period"))
    return Budget(**columns, subject=subject, period=period)
