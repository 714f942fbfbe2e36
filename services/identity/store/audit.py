"""The audit log. There is no way to change an entry; the database refuses it too."""

from __future__ import annotations

from sqlalchemy import insert, select, tuple_

from services.identity.domain import AuditEntry
from services.identity.tables import audit_entries
from services.runtime.db import Connection


async def add(connection: Connection, entry: AuditEntry) -> None:
    """Write an entry."""
    await connection.execute(
        insert(audit_entries).values(
            audit_entry_id=entry.audit_entry_id,
            tenant_id=entry.tenant_id,
            time=entry.time,
            action=entry.action,
            actor_id=entry.actor_id,
            subject_id=entry.subject_id,
            request_id=entry.request_id,
        )
    )


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
    return [
        AuditEntry(
            audit_entry_id=row.audit_entry_id,
            tenant_id=row.tenant_id,
            time=row.time,
            action=row.action,
            actor_id=row.actor_id,
            subject_id=row.subject_id,
            request_id=row.request_id,
        )
        for row in found
    ]
