"""The audit log. There is no way to change an entry; the database refuses it too."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import insert, select, tuple_

from services.identity.domain import AuditEntry
from services.identity.tables import audit_entries
from services.runtime.db import Connection

_ADD = insert(audit_entries)


async def add(connection: Connection, entry: AuditEntry) -> None:
    """Write an entry."""
    await connection.execute(_ADD, asdict(entry))


async def page(
    connection: Connection, tenant_id: str, size: int, after: tuple[int, str] | None
) -> list[AuditEntry]:
    """A tenant's entries, newest first, from behind the one with this time and id."""
    query = select(audit_entries).where(audit_entries.c.tenant_id == tenant_id)
    if after is not None:
        order = tuple_(audit_entries.c.time, audit_entries.c.audit_entry_id)
        query = query.where(order < after)
    found = await connection.execute(
        query.order_by(audit_entries.c.time.desc(), audit_entries.c.audit_entry_id.desc()).limit(
            size
        )
    )
    return [AuditEntry(**row._mapping) for row in found]
