"""How sources are kept, and what they brought."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, tuple_, update

from services.ingest.domain.documents import Visibility
from services.ingest.domain.sources import KINDS, Source, SourceRun
from services.ingest.tables import owners, source_items, sources
from services.runtime.db import Connection, upsert
from services.runtime.errors import NotFound

_FIELDS = [each.name for each in fields(Source)]
_COLUMNS = [sources.c[name] for name in _FIELDS]
_ITEMS_AT_ONCE = 500
_THERE = sources.c.removing == 0


async def get(
    connection: Connection, tenant_id: str, source_id: str, *, lock: bool = False
) -> Source:
    """One source.

    Raises:
        NotFound: There is none, or it is another tenant's.
    """
    query = select(*_COLUMNS).where(
        sources.c.source_id == source_id, sources.c.tenant_id == tenant_id, _THERE
    )
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("source")
    return _source(row)


async def page(
    connection: Connection, tenant_id: str, before: tuple[int, str] | None, limit: int
) -> list[Source]:
    """A tenant's sources, the newest first, after one of them."""
    query = select(*_COLUMNS).where(sources.c.tenant_id == tenant_id, _THERE)
    order = (sources.c.create_time, sources.c.source_id)
    if before is not None:
        query = query.where(tuple_(*order) < before)
    query = query.order_by(*(each.desc() for each in order)).limit(limit)
    return [_source(row) for row in await connection.execute(query)]


async def count(connection: Connection, tenant_id: str) -> int:
    """How many a tenant has."""
    query = select(func.count()).where(sources.c.tenant_id == tenant_id, _THERE)
    return (await connection.execute(query)).scalar_one()


async def add(connection: Connection, source: Source) -> None:
    """Keep a new source."""
    await connection.execute(insert(sources).values(**_values(source), removing=0))


async def replace(connection: Connection, source: Source) -> None:
    """Keep a source as it became; how a look at it goes is not part of that."""
    values = _values(source)
    for name in ("last_run", "cursor"):
        del values[name]
    await connection.execute(update(sources).where(_is(source)).values(**values))


async def claim(connection: Connection, owner: str, now: int) -> Source | None:
    """Take one whose time has come, to look at it; of all tenants."""
    due = or_(sources.c.next_time <= now, sources.c.asked)
    some = (
        select(sources.c.source_id)
        .where(due, sources.c.owner.is_(None), _THERE)
        .order_by(sources.c.next_time)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (await connection.execute(some)).one_or_none()
    if row is None:
        return None
    taken = await connection.execute(
        update(sources)
        .where(sources.c.source_id == row.source_id)
        .values(owner=owner, asked=False)
        .returning(*_COLUMNS)
    )
    return _source(taken.one())


async def due_there(connection: Connection, now: int) -> bool:
    """Whether the time of any has come, or one is to be removed."""
    due = or_(sources.c.next_time <= now, sources.c.asked)
    free = and_(due, sources.c.owner.is_(None), _THERE)
    query = select(sources.c.source_id).where(or_(free, sources.c.removing > 0)).limit(1)
    return (await connection.execute(query)).first() is not None


_LOST = and_(sources.c.owner.is_not(None), sources.c.owner.not_in(select(owners.c.owner)))


async def lost_there(connection: Connection) -> bool:
    """Whether `release` would find any."""
    query = select(sources.c.source_id).where(_LOST).limit(1)
    return (await connection.execute(query)).first() is not None


async def release(connection: Connection) -> None:
    """Have those looked at again whose process ended meanwhile; of all tenants."""
    await connection.execute(update(sources).where(_LOST).values(owner=None, asked=True))


async def tell_run(
    connection: Connection, source: Source, owner: str, run: SourceRun, cursor: str
) -> bool:
    """Keep how a look goes, and from where it goes on; False where the source is gone."""
    told = await connection.execute(
        update(sources)
        .where(_is(source), sources.c.owner == owner, _THERE)
        .values(last_run=asdict(run), cursor=cursor)
    )
    return bool(told.rowcount)


async def let_go(connection: Connection, source: Source, owner: str, next_time: int | None) -> None:
    """Nobody looks at it now; the next time is that of its schedule, unless that changed."""
    same = and_(_is(source), sources.c.owner == owner)
    await connection.execute(update(sources).where(same).values(owner=None))
    unchanged = and_(_is(source), sources.c.version == source.version)
    await connection.execute(update(sources).where(unchanged).values(next_time=next_time))


async def remove(connection: Connection, source: Source, *, with_documents: bool) -> None:
    """Hide a source; it is forgotten by and by."""
    removing = 2 if with_documents else 1
    await connection.execute(
        update(sources)
        .where(_is(source))
        .values(removing=removing, sealed=b"", next_time=None, asked=False)
    )


async def to_remove(connection: Connection) -> tuple[Source, bool] | None:
    """One to be forgotten, and whether its documents are to go; of all tenants."""
    query = select(*_COLUMNS, sources.c.removing).where(sources.c.removing > 0).limit(1)
    row = (await connection.execute(query.with_for_update(skip_locked=True))).one_or_none()
    return None if row is None else (_source(row), row.removing > 1)


async def forget(connection: Connection, source: Source) -> bool:
    """Forget some of what a source brought, and at last itself; True where there is more."""
    some = select(source_items.c.item_key).where(source_items.c.source_id == source.source_id)
    gone = await connection.execute(
        delete(source_items).where(
            source_items.c.source_id == source.source_id,
            source_items.c.item_key.in_(some.limit(_ITEMS_AT_ONCE)),
        )
    )
    if gone.rowcount == _ITEMS_AT_ONCE:
        return True
    await connection.execute(delete(sources).where(_is(source)))
    return False


async def mark_of(connection: Connection, source: Source, key: str) -> str | None:
    """Which state of a thing was brought; None where it was not."""
    query = select(source_items.c.mark).where(_item(source, key))
    return (await connection.execute(query)).scalar_one_or_none()


async def saw(connection: Connection, source: Source, key: str, when: int) -> None:
    """A thing is there still."""
    await connection.execute(update(source_items).where(_item(source, key)).values(seen=when))


async def brought(
    connection: Connection, source: Source, key: str, mark: str, document_id: str, when: int
) -> None:
    """A state of a thing was brought as this document."""
    values = {"document_id": document_id, "mark": mark, "seen": when}
    await connection.execute(
        upsert(connection.dialect.name, source_items)
        .values(
            source_id=source.source_id, item_key=_key(key), tenant_id=source.tenant_id, **values
        )
        .on_conflict_do_update(index_elements=["source_id", "item_key"], set_=values)
    )


async def missing(connection: Connection, source: Source, before: int, limit: int) -> list[str]:
    """Documents of things that were not seen since; they are forgotten as things."""
    some = (
        select(source_items.c.item_key)
        .where(source_items.c.source_id == source.source_id, source_items.c.seen < before)
        .limit(limit)
    )
    gone = await connection.execute(
        delete(source_items)
        .where(
            source_items.c.source_id == source.source_id,
            source_items.c.tenant_id == source.tenant_id,
            source_items.c.item_key.in_(some),
        )
        .returning(source_items.c.document_id)
    )
    return list(gone.scalars())


async def sealed(connection: Connection) -> list[tuple[str, bytes]]:
    """What is sealed, of all tenants."""
    query = select(sources.c.source_id, sources.c.sealed).where(_THERE)
    return [(row.source_id, row.sealed) for row in await connection.execute(query) if row.sealed]


async def seal_again(connection: Connection, source_id: str, old: bytes, new: bytes) -> None:
    """Replace what is sealed, unless it changed meanwhile."""
    same = and_(sources.c.source_id == source_id, sources.c.sealed == old)
    await connection.execute(update(sources).where(same).values(sealed=new))


def _is(source: Source) -> Any:
    return and_(sources.c.source_id == source.source_id, sources.c.tenant_id == source.tenant_id)


def _item(source: Source, key: str) -> Any:
    return and_(
        source_items.c.source_id == source.source_id,
        source_items.c.tenant_id == source.tenant_id,
        source_items.c.item_key == _key(key),
    )


def _key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _values(source: Source) -> dict[str, Any]:
    kind = next(name for name, each in KINDS.items() if isinstance(source.place, each))
    return {
        **{name: getattr(source, name) for name in _FIELDS},
        "place": {"kind": kind, **asdict(source.place)},
        "visibility": int(source.visibility),
        "last_run": asdict(source.last_run) if source.last_run else None,
    }


def _source(row: Any) -> Source:
    values = {name: row._mapping[name] for name in _FIELDS}
    place = dict(values["place"])
    values["place"] = KINDS[place.pop("kind")](**place)
    values["visibility"] = Visibility(values["visibility"])
    values["last_run"] = SourceRun(**values["last_run"]) if values["last_run"] else None
    return Source(**values)
