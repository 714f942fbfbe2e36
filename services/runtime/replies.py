"""Replies that are kept under the key by which their caller may ask again.

The reply is kept in the transaction of what it tells of, so that there is never one without the
other, and sealed, since it may hold what is shown only once. A repeat gets the same reply; the same
key with another request is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    select,
    tuple_,
)

from services.runtime import clock
from services.runtime.context import current
from services.runtime.crypto import MasterKey
from services.runtime.db import Connection
from services.runtime.errors import AlreadyExists

_KEPT = 24 * 3600 * clock.SECOND
_PURGED_AT_ONCE = 1_000
_KEY = ("tenant_id", "user_id", "method", "idempotency_key")


def replies_table(module: str, metadata: MetaData) -> Table:
    """A module's table of kept replies."""
    return Table(
        f"{module}_replies",
        metadata,
        Column("tenant_id", Text, primary_key=True),
        Column("user_id", Text, primary_key=True),
        Column("method", Text, primary_key=True),
        Column("idempotency_key", Text, primary_key=True),
        Column("digest", Text, nullable=False),
        Column("sealed_reply", LargeBinary, nullable=False),
        Column("expire_time", BigInteger, nullable=False),
    )


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A call that its caller may repeat.

    Attributes:
        key: What the caller chose for it; empty where it was not to be repeated.
        digest: What makes two requests the same.
    """

    key: str
    digest: str

    @classmethod
    def of(cls, request: Message, key: str) -> Repeatable:
        """The call of a request that has this key."""
        return cls(key, hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest())


class Replies:
    """The kept replies of a module."""

    def __init__(self, table: Table, master_key: MasterKey) -> None:
        self._table = table
        self._master_key = master_key

    async def find(self, connection: Connection, call: Repeatable) -> bytes | None:
        """The reply to an earlier call of the current caller under this key.

        Raises:
            AlreadyExists: The key stands for another request.
        """
        if not call.key:
            return None
        where = self._where(call)
        query = select(self._table.c.digest, self._table.c.sealed_reply)
        same = [self._table.c[name] == value for name, value in where.items()]
        row = (await connection.execute(query.where(*same))).one_or_none()
        if row is None:
            return None
        if row.digest != call.digest:
            raise AlreadyExists("The idempotency_key was used with another request.")
        return self._master_key.open(row.sealed_reply, _about(where))

    async def keep(self, connection: Connection, call: Repeatable, reply: bytes) -> None:
        """Keep the reply to a call for a day; without a key there is nothing to keep."""
        if not call.key:
            return
        where = self._where(call)
        await connection.execute(
            insert(self._table).values(
                **where,
                digest=call.digest,
                sealed_reply=self._master_key.seal(reply, _about(where)),
                expire_time=clock.now() + _KEPT,
            )
        )

    async def oldest(self, connection: Connection) -> list[tuple[str, bytes]]:
        """What the reply that was kept first is sealed as, and the reply, if there is any."""
        kept = select(self._table).order_by(self._table.c.expire_time).limit(1)
        row = (await connection.execute(kept)).first()
        if row is None:
            return []
        where = {name: row._mapping[name] for name in _KEY}
        return [(_about(where), row.sealed_reply)]

    async def purge(self, connection: Connection, now: int) -> bool:
        """Delete some expired replies; True where there may be more."""
        old = self._table.c.expire_time <= now
        key = list(self._table.primary_key)
        some = select(*key).where(old).limit(_PURGED_AT_ONCE)
        gone = await connection.execute(delete(self._table).where(tuple_(*key).in_(some)))
        return gone.rowcount == _PURGED_AT_ONCE

    def _where(self, call: Repeatable) -> dict[str, str]:
        now = current()
        assert now.principal is not None
        return {
            "tenant_id": now.principal.tenant_id,
            "user_id": now.principal.user_id,
            "method": now.method,
            "idempotency_key": call.key,
        }


def _about(where: dict[str, str]) -> str:
    return "reply/" + "/".join(where.values())
