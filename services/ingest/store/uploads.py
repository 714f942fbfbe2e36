"""How uploads are kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from services.ingest.domain.documents import Info, Visibility
from services.ingest.domain.uploads import Upload
from services.ingest.store import heaps
from services.ingest.tables import uploads
from services.runtime.context import Principal
from services.runtime.db import Connection
from services.runtime.errors import NotFound

_PURGED_AT_ONCE = 100


async def add(connection: Connection, upload: Upload) -> None:
    """Keep a new upload."""
    info = {
        **asdict(upload.info),
        "attributes": dict(upload.info.attributes),
        "visibility": int(upload.info.visibility),
    }
    await connection.execute(insert(uploads).values(**{**asdict(upload), "info": info}))


async def count(connection: Connection, tenant_id: str) -> int:
    """How many a tenant has under way."""
    query = select(func.count()).where(
        uploads.c.tenant_id == tenant_id, uploads.c.document_id == ""
    )
    return (await connection.execute(query)).scalar_one()


async def get(
    connection: Connection, who: Principal, upload_id: str, *, lock: bool = False
) -> Upload:
    """One upload of the caller's own.

    Raises:
        NotFound: There is none.
    """
    query = select(uploads).where(
        uploads.c.upload_id == upload_id,
        uploads.c.tenant_id == who.tenant_id,
        uploads.c.user_id == who.user_id,
    )
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound.of("upload")
    return _upload(row)


async def change(connection: Connection, upload: Upload) -> None:
    """Keep how far an upload is, or what became of it."""
    await connection.execute(
        update(uploads)
        .where(uploads.c.upload_id == upload.upload_id, uploads.c.tenant_id == upload.tenant_id)
        .values(
            received=upload.received,
            document_id=upload.document_id,
            expire_time=upload.expire_time,
        )
    )


async def remove(connection: Connection, upload: Upload) -> None:
    """Forget an upload, and what was written of it unless a document has it."""
    if not upload.document_id:
        await heaps.doom(connection, upload.tenant_id, upload.heap_id)
    await connection.execute(
        delete(uploads).where(
            uploads.c.upload_id == upload.upload_id, uploads.c.tenant_id == upload.tenant_id
        )
    )


async def purge(connection: Connection, now: int) -> bool:
    """Forget some that expired, of all tenants; True where there may be more."""
    query = select(uploads).where(uploads.c.expire_time <= now).limit(_PURGED_AT_ONCE)
    found = (await connection.execute(query.with_for_update(skip_locked=True))).all()
    for row in found:
        await remove(connection, _upload(row))
    return len(found) == _PURGED_AT_ONCE


def _upload(row: Row[Any]) -> Upload:
    values = dict(row._mapping)
    info = values["info"]
    values["info"] = Info(**{**info, "visibility": Visibility(info["visibility"])})
    return Upload(**values)
