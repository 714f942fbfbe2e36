"""How documents are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from services.ingest.domain.documents import (
    Document,
    Failure,
    Reason,
    State,
    Visibility,
    key_of,
    space_of,
)
from services.ingest.tables import documents, owners
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import NotFound

_FIELDS = [each.name for each in fields(Document)]
_COLUMNS = [documents.c[name] for name in _FIELDS]


def visible(who: Principal) -> ColumnElement[bool]:
    """Which documents a caller finds: the tenant's, but no other user's private ones.

    The mesh itself, which indexes them, finds all.
    """
    own = documents.c.tenant_id == who.tenant_id
    if who.mesh and not who.user_id:
        return own
    public = documents.c.visibility == int(Visibility.TENANT)
    return and_(own, or_(public, documents.c.owner_id == who.user_id))


async def get(
    connection: Connection, who: Principal, document_id: str, *, lock: bool = False
) -> Document:
    """One document that a caller finds.

    Raises:
        NotFound: There is none.
    """
    query = select(*_COLUMNS).where(visible(who), documents.c.document_id == document_id)
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("document")
    return document_of(row)


async def get_many(
    connection: Connection, who: Principal, document_ids: Sequence[str]
) -> list[Document]:
    """Those of some documents that a caller finds."""
    query = select(*_COLUMNS).where(visible(who), documents.c.document_id.in_(document_ids))
    return [document_of(row) for row in await connection.execute(query)]


async def page(
    connection: Connection,
    who: Principal,
    before: tuple[int, str] | None,
    limit: int,
    *,
    collection: str = "",
    state: int = 0,
    source_id: str = "",
    uri: str = "",
) -> list[Document]:
    """Documents that a caller finds, the newest first, after one of them."""
    query = select(*_COLUMNS).where(visible(who))
    for column, value in (
        ("collection", collection),
        ("state", state),
        ("source_id", source_id),
        ("uri_key", key_of(uri)),
    ):
        if value:
            query = query.where(documents.c[column] == value)
    order = (documents.c.create_time, documents.c.document_id)
    if before is not None:
        query = query.where(tuple_(*order) < before)
    query = query.order_by(*(each.desc() for each in order)).limit(limit)
    return [document_of(row) for row in await connection.execute(query)]


async def same_uri(connection: Connection, tenant_id: str, space: str, uri: str) -> Document | None:
    """The document that has a uri in a space, held until the commit."""
    query = select(*_COLUMNS).where(
        documents.c.tenant_id == tenant_id,
        documents.c.space == space,
        documents.c.uri_key == key_of(uri),
        documents.c.uri_key != "",
    )
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return None if row is None else document_of(row)


async def same_bytes(
    connection: Connection,
    who: Principal,
    visibility: Visibility,
    file_name: str,
    sha256: str,
) -> Document | None:
    """A user's own document without a uri that has this name and these bytes."""
    query = select(*_COLUMNS).where(
        documents.c.tenant_id == who.tenant_id,
        documents.c.sha256 == sha256,
        documents.c.owner_id == who.user_id,
        documents.c.space == space_of(visibility, who.user_id),
        documents.c.file_name == file_name,
        documents.c.uri_key == "",
        documents.c.parent_id == "",
    )
    row = (await connection.execute(query.limit(1))).one_or_none()
    return None if row is None else document_of(row)


async def children(connection: Connection, tenant_id: str, parent_id: str) -> list[Document]:
    """What is attached to a document."""
    query = select(*_COLUMNS).where(
        documents.c.parent_id == parent_id,
        documents.c.parent_id != "",
        documents.c.tenant_id == tenant_id,
    )
    return [document_of(row) for row in await connection.execute(query)]


async def of_source(
    connection: Connection, tenant_id: str, source_id: str, limit: int
) -> list[Document]:
    """Some documents of a source."""
    query = select(*_COLUMNS).where(
        documents.c.source_id == source_id,
        documents.c.source_id != "",
        documents.c.tenant_id == tenant_id,
        documents.c.parent_id == "",
    )
    return [document_of(row) for row in await connection.execute(query.limit(limit))]


async def usage(connection: Connection, tenant_id: str) -> tuple[int, int]:
    """How many documents a tenant has, and how many bytes they have."""
    query = select(func.count(), func.coalesce(func.sum(documents.c.size), 0)).where(
        documents.c.tenant_id == tenant_id
    )
    count, size = (await connection.execute(query)).one()
    return int(count), int(size)


async def add(connection: Connection, document: Document) -> None:
    """Keep a new document."""
    await connection.execute(insert(documents).values(**_values(document)))


async def replace(connection: Connection, document: Document, *, reading: bool = False) -> None:
    """Keep a document as it became.

    Args:
        connection: Of its tenant.
        document: It.
        reading: Whether its reader, if it has one, reads on.
    """
    values = _values(document)
    if document.state is not State.READING and not reading:
        values["owner"] = None
    await connection.execute(
        update(documents)
        .where(
            documents.c.document_id == document.document_id,
            documents.c.tenant_id == document.tenant_id,
        )
        .values(**values)
    )


async def remove(connection: Connection, document: Document) -> None:
    """Forget a document."""
    await connection.execute(
        delete(documents).where(
            documents.c.document_id == document.document_id,
            documents.c.tenant_id == document.tenant_id,
        )
    )


async def wait_there(connection: Connection) -> bool:
    """Whether any document waits to be read, of any tenant."""
    query = select(documents.c.document_id).where(documents.c.state == int(State.WAITING))
    return (await connection.execute(query.limit(1))).first() is not None


async def claim(connection: Connection, owner: str, limit: int) -> list[Document]:
    """Take some that wait the longest, to read them; of all tenants."""
    some = (
        select(documents.c.document_id)
        .where(documents.c.state == int(State.WAITING))
        .order_by(documents.c.update_time)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = await connection.execute(
        update(documents)
        .where(documents.c.document_id.in_(some))
        .values(state=int(State.READING), owner=owner, percent=0, attempts=documents.c.attempts + 1)
        .returning(*_COLUMNS)
    )
    return [document_of(row) for row in taken]


def _lost(living: str, carried: Sequence[str]) -> ColumnElement[bool]:
    """What a process had to read that ended, or that this one lost sight of."""
    nobodys = or_(documents.c.owner.not_in(select(owners.c.owner)), documents.c.owner == living)
    under_way = documents.c.state == int(State.READING)
    return and_(under_way, nobodys, documents.c.document_id.not_in(carried))


async def lost_there(connection: Connection, living: str, carried: Sequence[str]) -> bool:
    """Whether `release` would set any free."""
    query = select(documents.c.document_id).where(_lost(living, carried)).limit(1)
    return (await connection.execute(query)).first() is not None


async def release(connection: Connection, living: str, carried: Sequence[str]) -> list[Document]:
    """Let those wait again that a process had to read which ended; of all tenants.

    Args:
        connection: Of all tenants.
        living: This process.
        carried: What it reads.
    """
    some = select(documents.c.document_id).where(_lost(living, carried))
    free = await connection.execute(
        update(documents)
        .where(documents.c.document_id.in_(some.limit(500).with_for_update(skip_locked=True)))
        .values(
            state=int(State.WAITING),
            owner=None,
            # Where its reader lives, it was not the document that ended it.
            attempts=case(
                (documents.c.owner == living, documents.c.attempts - 1),
                else_=documents.c.attempts,
            ),
        )
        .returning(*_COLUMNS)
    )
    return [document_of(row) for row in free]


async def still_read(connection: Connection, document: Document, owner: str) -> Document | None:
    """A document that a process reads, held until the commit; None where it reads in vain."""
    query = select(*_COLUMNS).where(
        documents.c.document_id == document.document_id,
        documents.c.tenant_id == document.tenant_id,
        documents.c.ticket == document.ticket,
        documents.c.owner == owner,
        documents.c.state == int(State.READING),
    )
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return None if row is None else document_of(row)


async def tell_percent(
    connection: Connection, document: Document, owner: str, percent: int
) -> bool:
    """Say how much of a document is read; False where it is read in vain."""
    told = await connection.execute(
        update(documents)
        .where(
            documents.c.document_id == document.document_id,
            documents.c.tenant_id == document.tenant_id,
            documents.c.ticket == document.ticket,
            documents.c.owner == owner,
        )
        .values(percent=percent)
    )
    return bool(told.rowcount)


def document_of(row: Row[Any]) -> Document:
    """A document from its row."""
    values = {name: row._mapping[name] for name in _FIELDS}
    failure = values["failure"]
    values["failure"] = failure and Failure(
        Reason(failure["reason"]), failure["message"], failure["time"]
    )
    values["state"] = State(values["state"])
    values["visibility"] = Visibility(values["visibility"])
    return Document(**values)


def _values(document: Document) -> dict[str, Any]:
    return {
        **{name: getattr(document, name) for name in _FIELDS},
        "attributes": dict(document.attributes),
        "state": int(document.state),
        "visibility": int(document.visibility),
        "failure": asdict(document.failure) if document.failure else None,
        "space": document.space,
        "uri_key": key_of(document.uri),
    }
