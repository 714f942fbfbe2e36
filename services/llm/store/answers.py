"""Answers kept under idempotency keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select, tuple_, update

from services.llm.domain.generation import in_progress
from services.llm.domain.ledger import EndedCall, Kept, NewCall
from services.llm.tables import answers
from services.runtime.db import Connection
from services.runtime.errors import AlreadyExists, PlexusError

_PURGED_AT_ONCE = 1_000
_KEY = tuple_(*answers.primary_key)
_KEEP = (
    update(answers)
    .where(answers.c.call_id == bindparam("of"))
    .values(sealed_answer=bindparam("sealed"))
)


async def repeated(
    connection: Connection, batch: Sequence[NewCall]
) -> dict[str, Kept | PlexusError]:
    """What calls get in place of a model's answer, by their ids, where their keys are known."""
    keyed = [(_of(call), call) for call in batch if call.key]
    if not keyed:
        return {}
    found = await connection.execute(select(answers).where(_KEY.in_([key for key, _ in keyed])))
    known = {(row.tenant_id, row.user_id, row.idempotency_key): row for row in found}
    results: dict[str, Kept | PlexusError] = {}
    begun: dict[tuple[str, str, str], str] = {}
    for key, call in keyed:
        assert call.key is not None
        row = known.get(key)
        if row is None and key not in begun:
            begun[key] = call.key.digest
        elif (row.digest if row else begun[key]) != call.key.digest:
            results[call.call_id] = AlreadyExists(
                "The idempotency_key was used with another request."
            )
        elif row is not None and row.sealed_answer is not None:
            results[call.call_id] = Kept(row.call_id, row.sealed_answer)
        else:
            results[call.call_id] = in_progress()
    return results


async def begin(connection: Connection, batch: Sequence[NewCall]) -> None:
    """Let others know that calls with keys are under way."""
    rows = [
        {
            "tenant_id": call.tenant_id,
            "user_id": call.user_id,
            "idempotency_key": call.key.idempotency_key,
            "call_id": call.call_id,
            "digest": call.key.digest,
            "expire_time": call.key.expire_time,
        }
        for call in batch
        if call.key
    ]
    if rows:
        await connection.execute(insert(answers), rows)


async def end(connection: Connection, batch: Sequence[EndedCall]) -> None:
    """Keep the answers of calls that finished, and forget the keys of those that did not."""
    kept = [
        {"of": call.call_id, "sealed": call.sealed_answer} for call in batch if call.sealed_answer
    ]
    if kept:
        await connection.execute(_KEEP, kept)
    gone = [call.call_id for call in batch if call.keyed and not call.sealed_answer]
    if gone:
        await connection.execute(delete(answers).where(answers.c.call_id.in_(gone)))


async def oldest(connection: Connection) -> list[tuple[str, bytes]]:
    """The tenant and the sealed answer of the one that was kept first, if there is any."""
    kept = select(answers).where(answers.c.sealed_answer.is_not(None))
    found = await connection.execute(kept.order_by(answers.c.expire_time).limit(1))
    return [(row.tenant_id, row.sealed_answer) for row in found]


async def purge(connection: Connection, now: int) -> bool:
    """Delete some expired answers; True where there may be more."""
    some = select(*answers.primary_key).where(answers.c.expire_time <= now).limit(_PURGED_AT_ONCE)
    gone = await connection.execute(delete(answers).where(_KEY.in_(some)))
    return bool(gone.rowcount == _PURGED_AT_ONCE)


def _of(call: NewCall) -> tuple[str, str, str]:
    assert call.key is not None
    return (call.tenant_id, call.user_id, call.key.idempotency_key)
