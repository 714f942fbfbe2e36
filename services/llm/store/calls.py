"""The ledger: calls under way and ended, and their sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Row, Table, bindparam, delete, insert, select, text, update

from services.llm.domain.configuration import Budget, Spent, Subject
from services.llm.domain.ledger import EndedCall, Kept, NewCall, Opened, State, grant, subjects_of
from services.llm.domain.routing import Price
from services.llm.store import answers, budgets
from services.llm.tables import calls, owners, spent_days, usage_days
from services.runtime.db import Connection, upsert
from services.runtime.errors import PlexusError

# Written out, for an index on some rows serves only a query that says it is about those.
_UNDER_WAY = text("llm_calls.state = 1")
_MAX_TAKEN = 500
_PURGED_AT_ONCE = 1_000
_END = (
    update(calls)
    .where(calls.c.call_id == bindparam("of"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                *("state", "model", "end_time", "input_tokens", "output_tokens"),
                *("cost", "estimated", "reserved_cost", "reserved_tokens"),
            )
        }
    )
)
_UNDER_WAY_OF = (
    select(calls)
    .where(calls.c.call_id.in_(bindparam("ids", expanding=True)), calls.c.state == State.UNDER_WAY)
    # In one order for all replicas, so that they do not wait for each other in a circle.
    .order_by(calls.c.call_id)
    .with_for_update()
)
_Held: TypeAlias = dict[tuple[str, Subject, str], list[tuple[Budget, Spent]]]


async def begin(
    connection: Connection, batch: Sequence[NewCall]
) -> Sequence[Opened | Kept | PlexusError]:
    """Enter calls as under way, reserving of the budgets what they may take.

    In the place of a call stands what an earlier one under its key got, or why it must not be made.
    """
    results: dict[str, Opened | Kept | PlexusError] = dict(
        await answers.repeated(connection, batch)
    )
    fresh = [call for call in batch if call.call_id not in results]
    held = await _held(connection, fresh)
    rows = []
    begun = []
    for call in fresh:
        mine = [each for subject in call.subjects for each in held.get(subject, ())]
        try:
            answer = grant(call, mine)
        except PlexusError as error:
            results[call.call_id] = error
            continue
        tokens = cost = 0
        if mine:
            tokens, cost = call.input_tokens + answer, call.price.of(call.input_tokens, answer)
            _reserve(held, call, Spent(cost, tokens))
        results[call.call_id] = Opened(answer if mine else None)
        begun.append(call)
        rows.append(_columns(call, cost, tokens))
    if rows:
        await connection.execute(insert(calls), rows)
    await answers.begin(connection, begun)
    return [results[call.call_id] for call in batch]


async def _held(connection: Connection, batch: Sequence[NewCall]) -> _Held:
    """The budgets that calls count for, and what is spent of them."""
    wanted = {subject for call in batch for subject in call.subjects}
    held: _Held = {}
    for budget in await budgets.holding(connection, wanted) if wanted else ():
        spent = await budgets.spent(connection, budget, max(call.day for call in batch))
        key = (budget.tenant_id, budget.subject, budget.subject_id)
        held.setdefault(key, []).append((budget, spent))
    return held


def _reserve(held: _Held, call: NewCall, more: Spent) -> None:
    """Count what a call may take for the calls that come after it in the same transaction."""
    for subject in call.subjects:
        if subject in held:
            held[subject] = [
                (budget, Spent(spent.cost + more.cost, spent.tokens + more.tokens))
                for budget, spent in held[subject]
            ]


async def end(connection: Connection, batch: Sequence[EndedCall]) -> Sequence[PlexusError | None]:
    """Enter what calls took, each once: who comes second changes nothing."""
    ids = [call.call_id for call in batch]
    begun = {row.call_id: row for row in await connection.execute(_UNDER_WAY_OF, {"ids": ids})}
    ended = [(call, begun.pop(call.call_id)) for call in batch if call.call_id in begun]
    if ended:
        await connection.execute(_END, [_ending(call) for call, _ in ended])
        await _sum(connection, ended)
        await answers.end(connection, [call for call, _ in ended])
    return [None] * len(batch)


async def _sum(connection: Connection, ended: Sequence[tuple[EndedCall, Row[Any]]]) -> None:
    usage: dict[tuple[str, ...], Counter[str]] = {}
    spent: dict[tuple[str, int, str, str], Counter[str]] = {}
    for call, row in ended:
        key = (call.tenant_id, row.day, call.model, row.agent_id, row.user_id)
        usage.setdefault(key, Counter()).update(
            calls=1,
            failed_calls=int(call.state is not State.FINISHED),
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cost=call.cost,
            estimated_calls=int(call.estimated),
        )
        for tenant_id, subject, of in subjects_of(call.tenant_id, row.user_id, row.agent_id):
            spent.setdefault((tenant_id, subject.value, of, row.day), Counter()).update(
                cost=call.cost, tokens=call.input_tokens + call.output_tokens
            )
    await _add_up(connection, usage_days, usage)
    await _add_up(connection, spent_days, spent)


async def _add_up(connection: Connection, table: Table, sums: dict[Any, Counter[str]]) -> None:
    """Add to the rows with these keys, in one order for all replicas."""
    statement, keys, counts = _adding(connection.dialect.name, table)
    rows = [
        dict(zip(keys, key, strict=True)) | {name: sums[key][name] for name in counts}
        for key in sorted(sums)
    ]
    await connection.execute(statement, rows)


@cache
def _adding(dialect: str, table: Table) -> tuple[Any, list[str], list[str]]:
    """What adds to a row or makes it, the names of its key, and those of what is added."""
    keys = [each.name for each in table.primary_key]
    counts = [each.name for each in table.columns if each.name not in keys]
    more = upsert(dialect, table)
    added = {name: table.c[name] + more.excluded[name] for name in counts}
    return more.on_conflict_do_update(index_elements=keys, set_=added), keys, counts


async def orphans(connection: Connection, own: str) -> list[tuple[str, NewCall]]:
    """Some calls whose processes ended, with those processes' names."""
    query = select(calls).where(
        _UNDER_WAY, calls.c.owner != own, calls.c.owner.not_in(select(owners.c.owner))
    )
    found = await connection.execute(query.limit(_MAX_TAKEN))
    return [(row.owner, _call(row)) for row in found]


async def purge(connection: Connection, before: int) -> bool:
    """Delete some calls that ended before a time, whose sums stay; True where there may be more."""
    some = select(calls.c.call_id).where(calls.c.end_time < before).limit(_PURGED_AT_ONCE)
    gone = await connection.execute(delete(calls).where(calls.c.call_id.in_(some)))
    return bool(gone.rowcount == _PURGED_AT_ONCE)


def _columns(call: NewCall, cost: int, tokens: int) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "tenant_id": call.tenant_id,
        "user_id": call.user_id,
        "agent_id": call.agent_id,
        "owner": call.owner,
        "state": int(State.UNDER_WAY),
        "model": call.model,
        "day": call.day,
        "start_time": call.start_time,
        "input_tokens": call.input_tokens,
        "output_tokens": 0,
        "cost": 0,
        "estimated": True,
        "reserved_cost": cost,
        "reserved_tokens": tokens,
        "price_input": call.price.input,
        "price_output": call.price.output,
    }


def _ending(call: EndedCall) -> dict[str, Any]:
    return {
        "of": call.call_id,
        "new_state": int(call.state),
        "new_model": call.model,
        "new_end_time": call.end_time,
        "new_input_tokens": call.input_tokens,
        "new_output_tokens": call.output_tokens,
        "new_cost": call.cost,
        "new_estimated": call.estimated,
        "new_reserved_cost": 0,
        "new_reserved_tokens": 0,
    }


def _call(row: Row[Any]) -> NewCall:
    return NewCall(
        call_id=row.call_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        agent_id=row.agent_id,
        owner=row.owner,
        model=row.model,
        day=row.day,
        start_time=row.start_time,
        input_tokens=row.input_tokens,
        price=Price(row.price_input, row.price_output),
        most_answer=0,
        least_answer=0,
    )
