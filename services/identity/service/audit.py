"""Writing and reading the audit log."""

from __future__ import annotations

from services.identity import store
from services.identity.domain import API_KEY_PREFIX, Action, AuditEntry
from services.runtime import clock
from services.runtime.context import Principal, current_or_none
from services.runtime.db import Connection, Database
from services.runtime.ids import new_id


def is_api_key(principal: Principal) -> bool:
    """Whether the caller brought an API key rather than logged in."""
    return principal.credential_id.startswith(f"{API_KEY_PREFIX}_")


async def record(
    connection: Connection,
    action: Action,
    *,
    tenant_id: str,
    subject_id: str,
    actor: str = "",
    time: int | None = None,
) -> None:
    """Write an entry in the transaction of what it tells of, so that there is never one alone."""
    call = current_or_none()
    entry = AuditEntry(
        audit_entry_id=new_id("aud"),
        tenant_id=tenant_id,
        time=clock.now() if time is None else time,
        action=action.value,
        actor_id=actor,
        subject_id=subject_id,
        request_id=call.request_id if call else "",
    )
    await store.audit.add(connection, entry)


class AuditLog:
    """Reads the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, principal: Principal, size: int, after: tuple[int, str] | None
    ) -> list[AuditEntry]:
        """The caller's tenant's entries, newest first, from behind a time and id."""
        async with self._database.read() as connection:
            return await store.audit.page(connection, principal.tenant_id, size, after)
