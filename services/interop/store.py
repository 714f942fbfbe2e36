"""How responses of models are kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Row, Update, bindparam, delete, func, insert, literal, select, text, update

from services.interop.domain.kept import (
    MAX_DEPTH,
    Kept,
    Taken,
    packed,
    size_of,
    unpacked,
    unpacked_end,
)
from services.interop.domain.values import End, Piece
from services.interop.tables import pieces, responses
from services.runtime import clock
from services.runtime.db import Connection, upsert
from services.runtime.errors import NotFound

# Written out, for an index on some rows serves only a query that says it is about those.
UNDER_WAY = text("interop_responses.end_time IS NULL")
_PURGED_AT_ONCE = 100
_INSERT = insert(responses)
_INSERT_PIECES = insert(pieces)
_OWN = update(responses).where(
    responses.c.tenant_id == bindparam("whose"),
    responses.c.response_id == bindparam("of"),
    responses.c.owner == bindparam("by"),
    UNDER_WAY,
)
_GROW = _OWN.values(size=responses.c.size + bindparam("more"))
_END = _OWN.values(ending=bindparam("how"), end_time=bindparam("now"))


async def insert_response(
    connection: Connection, kept: Kept, owner: str, said: Sequence[Piece] = ()
) -> None:
    """Keep a response, under way or already over, with what was answered so far."""
    data = [packed(each) for each in said]
    row = {
        "response_id": kept.response_id,
        "tenant_id": kept.tenant_id,
        "user_id": kept.user_id,
        "owner": owner,
        "previous_id": kept.previous_id,
        "request": {"model": kept.model, "items": [*kept.items], "echo": {**kept.echo}},
        "depth": kept.depth,
        "size": kept.size + (size_of(data) if data else 0),
        "ending": None,
        "cancel_asked": False,
        "create_time": kept.create_time,
        "end_time": None,
    }
    await connection.execute(_INSERT, row | (ending(kept.end) if kept.end else {}))
    if data:
        await connection.execute(_INSERT_PIECES, _pieces(kept, 1, data))


async def add(
    connection: Connection, kept: Kept, owner: str, place: int, said: Sequence[Piece]
) -> None:
    """Keep more of an answer; repeating a place changes nothing but the count of its bytes.

    Raises:
        Taken: The response is not this process's any more.
    """
    data = [packed(each) for each in said]
    await _change(connection, _GROW, kept, owner, more=size_of(data))
    await connection.execute(_adding(connection.dialect.name), _pieces(kept, place, data))


@cache
def _adding(dialect: str) -> Any:
    return upsert(dialect, pieces).on_conflict_do_nothing()


async def end(connection: Connection, kept: Kept, owner: str, how: End) -> None:
    """Keep how a response ended.

    Raises:
        Taken: The response is not this process's any more, or has ended.
    """
    await _change(connection, _END, kept, owner, how=asdict(how), now=clock.now())


def ending(how: End) -> dict[str, Any]:
    """What a row has when its response has ended."""
    return {"ending": asdict(how), "end_time": clock.now()}


async def _change(
    connection: Connection, change: Update, kept: Kept, owner: str, **values: Any
) -> None:
    own = {"whose": kept.tenant_id, "of": kept.response_id, "by": owner}
    if not (await connection.execute(change, own | values)).rowcount:
        raise Taken


def _pieces(kept: Kept, place: int, data: Sequence[Any]) -> dict[str, Any]:
    return {
        "response_id": kept.response_id,
        "place": place,
        "tenant_id": kept.tenant_id,
        "data": data,
    }


async def under_way(connection: Connection, tenant_id: str) -> int:
    """How many of a tenant's responses are under way."""
    query = select(func.count()).select_from(responses)
    query = query.where(responses.c.tenant_id == tenant_id, UNDER_WAY)
    return int((await connection.execute(query)).scalar_one())


async def get(connection: Connection, tenant_id: str, response_id: str) -> Kept:
    """One response.

    Raises:
        NotFound: There is none, or it is another tenant's.
    """
    query = select(responses).where(
        responses.c.tenant_id == tenant_id, responses.c.response_id == response_id
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("response")
    return _kept(row)


async def list_pieces(
    connection: Connection,
    tenant_id: str,
    response_id: str,
    after: int = 0,
    limit: int | None = None,
) -> list[tuple[int, list[Piece]]]:
    """What was answered after a place, in order, with the places."""
    query = (
        select(pieces.c.place, pieces.c.data)
        .where(
            pieces.c.tenant_id == tenant_id,
            pieces.c.response_id == response_id,
            pieces.c.place > after,
        )
        .order_by(pieces.c.place)
        .limit(limit)
    )
    rows = await connection.execute(query)
    return [(row.place, [unpacked(each) for each in row.data]) for row in rows]


async def chain(
    connection: Connection, tenant_id: str, response_id: str
) -> list[tuple[Kept, list[Piece]]]:
    """A response and all that it goes on from, oldest first, with their answers."""
    mine = responses.c.tenant_id == tenant_id
    links = (
        select(responses.c.response_id, responses.c.previous_id, literal(1).label("back"))
        .where(mine, responses.c.response_id == response_id)
        .cte("links", recursive=True)
    )
    links = links.union_all(
        select(responses.c.response_id, responses.c.previous_id, links.c.back + 1).where(
            mine, responses.c.response_id == links.c.previous_id, links.c.back < MAX_DEPTH
        )
    )
    query = select(responses).join(links, links.c.response_id == responses.c.response_id)
    rows = await connection.execute(query.where(mine).order_by(links.c.back.desc()))
    found: dict[str, tuple[Kept, list[Piece]]] = {row.response_id: (_kept(row), []) for row in rows}
    said = select(pieces).where(pieces.c.tenant_id == tenant_id, pieces.c.response_id.in_(found))
    said = said.order_by(pieces.c.response_id, pieces.c.place)
    for row in await connection.execute(said):
        found[row.response_id][1].extend(map(unpacked, row.data))
    return list(found.values())


async def ask_cancel(connection: Connection, tenant_id: str, response_id: str) -> None:
    """Let the process that writes a response know that somebody wants it cancelled."""
    mine = (responses.c.tenant_id == tenant_id, responses.c.response_id == response_id)
    await connection.execute(update(responses).where(*mine, UNDER_WAY).values(cancel_asked=True))


async def remove(connection: Connection, tenant_id: str, response_id: str) -> None:
    """Forget a response.

    Raises:
        NotFound: There is none, or it is another tenant's.
    """
    mine = (responses.c.tenant_id == tenant_id, responses.c.response_id == response_id)
    if not (await connection.execute(delete(responses).where(*mine))).rowcount:
        raise NotFound.of("response")
    await _remove_pieces(connection, [response_id])


async def purge(connection: Connection, before: int) -> bool:
    """Forget some responses from before a time; True where there may be more."""
    some = select(responses.c.response_id).where(responses.c.create_time < before)
    gone = list((await connection.execute(some.limit(_PURGED_AT_ONCE))).scalars())
    await connection.execute(delete(responses).where(responses.c.response_id.in_(gone)))
    await _remove_pieces(connection, gone)
    return len(gone) == _PURGED_AT_ONCE


async def _remove_pieces(connection: Connection, ids: Collection[str]) -> None:
    await connection.execute(delete(pieces).where(pieces.c.response_id.in_(ids)))


def _kept(row: Row[Any]) -> Kept:
    return Kept(
        response_id=row.response_id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        model=row.request["model"],
        previous_id=row.previous_id,
        items=row.request["items"],
        echo=row.request["echo"],
        depth=row.depth,
        size=row.size,
        create_time=row.create_time,
        end=unpacked_end(row.ending) if row.ending else None,
    )
