"""Versions of memories, and what leads to them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, or_, select, text, update

from services.memory.domain.likeness import marks as marks_of
from services.memory.domain.values import FIRST_STRENGTH, Content, Version
from services.memory.store.shared import Place, add, batches
from services.memory.tables import contradictions, known, marks, versions
from services.runtime.db import Connection, upsert

# For each mark the newest memories alone, by a database's own way to take a list of numbers: each
# is a short walk along the primary key.
_ALIKE = {
    "sqlite": text("""
SELECT x.mark, x.memory_id FROM json_each(:marks) v CROSS JOIN memory_marks x
WHERE x.tenant_id = :tenant_id AND x.space = :space AND x.mark = v.value
AND x.memory_id >= COALESCE((SELECT y.memory_id FROM memory_marks y
  WHERE y.tenant_id = :tenant_id AND y.space = :space AND y.mark = v.value
  ORDER BY y.memory_id DESC LIMIT 1 OFFSET :most - 1), '')"""),
    "postgresql": text("""
SELECT v.mark, x.memory_id
FROM (SELECT CAST(value AS bigint) AS mark
  FROM json_array_elements_text(CAST(:marks AS json))) v,
LATERAL (SELECT y.memory_id FROM memory_marks y
  WHERE y.tenant_id = :tenant_id AND y.space = :space AND y.mark = v.mark
  ORDER BY y.memory_id DESC LIMIT :most) x"""),
}


async def get(
    connection: Connection, place: Place, version_ids: Iterable[str]
) -> dict[str, Version]:
    """Versions by id; those that are erased or gone are not there."""
    found = {}
    for some in batches(version_ids):
        query = select(versions).where(
            *place.of(versions), versions.c.version_id.in_(some), versions.c.erased.is_(False)
        )
        found.update({row.version_id: to_version(row) for row in await connection.execute(query)})
    return found


async def sizes(connection: Connection, place: Place, version_ids: Iterable[str]) -> dict[str, int]:
    """How many bytes versions have, by id."""
    found = {}
    for some in batches(version_ids):
        query = select(versions.c.version_id, versions.c.size).where(
            *place.of(versions), versions.c.version_id.in_(some), versions.c.erased.is_(False)
        )
        found.update({row.version_id: row.size for row in await connection.execute(query)})
    return found


async def put(
    connection: Connection, place: Place, made: Sequence[Version], now: int, *, bands: bool
) -> None:
    """Keep versions, and what they are found by.

    Args:
        connection: Where.
        place: In which space.
        made: Which.
        now: When.
        bands: Whether those that are alike are to be found, too.
    """
    rows: list[dict[str, Any]] = []
    led: list[dict[str, Any]] = []
    # In one order for all: two who store the same at once wait for each other, and not in a ring.
    for each in sorted(made, key=lambda version: version.version_id):
        body = each.content.to_json()
        rows.append(
            {
                **place.values,
                "version_id": each.version_id,
                "memory_id": each.memory_id,
                "person": each.content.person,
                "body": body,
                "size": len(body.encode()),
                "create_time": each.create_time,
                "update_time": each.update_time,
                "stored_time": now,
                "erased": False,
            }
        )
        led += [
            {**place.values, "mark": mark, "memory_id": each.memory_id}
            for mark in marks_of(each.content, bands=bands)
        ]
    table = upsert(connection.dialect.name, versions)
    insert = table.on_conflict_do_update(
        index_elements=[versions.c.tenant_id, versions.c.space, versions.c.version_id],
        # Also what was erased: it is said anew.
        set_={
            name: table.excluded[name]
            for name in ("stored_time", "body", "person", "size", "erased")
        },
    )
    for some in batches(rows):
        await connection.execute(insert, some)
    await add(connection, marks, sorted(led, key=lambda row: (row["mark"], row["memory_id"])))
    new = [
        {
            "tenant_id": place.tenant_id,
            "memory_id": each.memory_id,
            "space": place.space,
            "strength": FIRST_STRENGTH,
            "use_time": now,
        }
        for each in sorted(made, key=lambda version: version.memory_id)
    ]
    await add(connection, known, new)


async def alike(
    connection: Connection, place: Place, wanted: Collection[int], most: int
) -> dict[int, list[str]]:
    """The newest memories with each of some marks, at most so many for each, the newest first."""
    found: dict[int, list[str]] = {}
    query = _ALIKE[connection.dialect.name]
    for some in batches(wanted):
        values = {**place.values, "marks": json.dumps(some), "most": most}
        for row in await connection.execute(query, values):
            found.setdefault(row.mark, []).append(row.memory_id)
    return {mark: sorted(ids, reverse=True) for mark, ids in found.items()}


async def link(
    connection: Connection, place: Place, pairs: Iterable[tuple[Version, Version]]
) -> None:
    """Keep that versions say otherwise, both ways."""
    rows = [
        {
            **place.values,
            "version_id": one.version_id,
            "other_version_id": other.version_id,
            "memory_id": one.memory_id,
            "other_memory_id": other.memory_id,
        }
        for first, second in pairs
        for one, other in ((first, second), (second, first))
    ]
    await add(connection, contradictions, rows)


async def links(
    connection: Connection, place: Place, version_ids: Iterable[str]
) -> dict[str, list[tuple[str, str]]]:
    """What says otherwise than some versions: of each the others' memories and versions."""
    found: dict[str, list[tuple[str, str]]] = {}
    for some in batches(version_ids):
        query = select(contradictions).where(
            *place.of(contradictions), contradictions.c.version_id.in_(some)
        )
        for row in await connection.execute(query.order_by(contradictions.c.other_memory_id)):
            other = (row.other_memory_id, row.other_version_id)
            found.setdefault(row.version_id, []).append(other)
    return found


async def space_of(connection: Connection, tenant_id: str, memory_id: str) -> str | None:
    """The space of a memory; None where it is not known."""
    query = select(known.c.space).where(
        known.c.tenant_id == tenant_id, known.c.memory_id == memory_id
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def spaces_of(
    connection: Connection, tenant_id: str, memory_ids: Collection[str]
) -> dict[str, tuple[str, float, int]]:
    """Of memories: the space, the strength at the last use, and when that was."""
    # Put so that no index is taken for the tenant's sake: without statistics PostgreSQL would read
    # all that the tenant has.
    own = known.c.tenant_id + "" == tenant_id
    query = select(known).where(own, known.c.memory_id.in_(memory_ids))
    rows = await connection.execute(query)
    return {row.memory_id: (row.space, row.strength, row.use_time) for row in rows}


async def strengths(
    connection: Connection, tenant_id: str, memory_ids: Iterable[str]
) -> dict[str, tuple[float, int]]:
    """Of memories the strength at the last use, and when that was."""
    found: dict[str, tuple[float, int]] = {}
    for some in batches(memory_ids):
        held = await spaces_of(connection, tenant_id, some)
        found.update({memory_id: values[1:] for memory_id, values in held.items()})
    return found


async def lately(connection: Connection, place: Place, limit: int) -> list[str]:
    """The memories of a space that were used last, on whichever branch."""
    query = select(known.c.memory_id).where(*place.of(known)).order_by(known.c.use_time.desc())
    return list((await connection.execute(query.limit(limit))).scalars())


async def use(
    connection: Connection, tenant_id: str, strengths: Mapping[str, float], now: int
) -> None:
    """Keep how strong memories are after a use."""
    for memory_id, strength in sorted(strengths.items()):
        same = and_(known.c.tenant_id == tenant_id, known.c.memory_id == memory_id)
        await connection.execute(update(known).where(same).values(strength=strength, use_time=now))


async def unlink(connection: Connection, place: Place, version_ids: Collection[str]) -> None:
    """Forget what versions say otherwise than."""
    c = contradictions.c
    either = or_(c.version_id.in_(version_ids), c.other_version_id.in_(version_ids))
    await connection.execute(delete(contradictions).where(*place.of(contradictions), either))


def to_version(row: Row[Any]) -> Version:
    """A version as it was kept."""
    content = Content.from_json(row.body)
    return Version(row.memory_id, content, row.create_time, row.update_time, row.version_id)
