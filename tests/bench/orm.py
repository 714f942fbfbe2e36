"""The peer's database: SQLAlchemy's async ORM on SQLite, as its documentation has it.

WAL and synchronous=FULL, as Plexus has; transactions take the write lock when they begin, or
half of them would fail when they come to write.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, event, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_engines: list[AsyncEngine] = []
_sessions: list[async_sessionmaker[AsyncSession]] = []


class Base(DeclarativeBase):
    """The tables."""


class Account(Base):
    """A user."""

    __tablename__ = "users"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    email: Mapped[str]
    display_name: Mapped[str]
    roles: Mapped[str]
    create_time: Mapped[int]
    version: Mapped[int]


class Entry(Base):
    """An entry of the audit log."""

    __tablename__ = "audit_entries"
    audit_entry_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    time: Mapped[int]
    action: Mapped[str]
    actor_id: Mapped[str]
    subject_id: Mapped[str]
    request_id: Mapped[str]


class Happened(Base):
    """An event of a run."""

    __tablename__ = "run_events"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    time: Mapped[int]
    kind: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


async def connect(file: Path, connections: int) -> None:
    """Open the database; 0 connections are the pool that SQLAlchemy makes by itself."""
    pool = {"pool_size": connections, "max_overflow": 0} if connections else {}
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{file}",
        connect_args={"timeout": 30, "isolation_level": None},
        pool_timeout=60,
        **pool,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    _engines[:] = [engine]
    _sessions[:] = [async_sessionmaker(engine, expire_on_commit=False)]


async def make(file: Path, rows: Sequence[Base]) -> None:
    """Make the database with some rows."""
    await connect(file, 1)
    async with _sessions[0]() as session, session.begin():
        session.add_all(rows)
    await _engines.pop().dispose()


async def rename(
    tenant_id: str, user_id: str, display_name: str | None, etag: str
) -> Account | None:
    """Change a user and tell the audit log, in one transaction."""
    async with _sessions[0]() as session, session.begin():
        query = select(Account).where(Account.tenant_id == tenant_id, Account.user_id == user_id)
        account = (await session.execute(query)).scalar_one_or_none()
        if account is None or (etag and etag != str(account.version)):
            return None
        if display_name is not None and display_name != account.display_name:
            account.display_name = display_name
            account.version += 1
            session.add(
                Entry(
                    audit_entry_id=f"aud_{secrets.token_hex(13)}",
                    tenant_id=tenant_id,
                    time=time.time_ns() // 1000,
                    action="user.update",
                    actor_id=user_id,
                    subject_id=user_id,
                    request_id=secrets.token_hex(16),
                )
            )
    return account


async def events(tenant_id: str, run_id: str) -> Sequence[Happened]:
    """A run's events, in order."""
    async with _sessions[0]() as session:
        query = (
            select(Happened)
            .where(Happened.tenant_id == tenant_id, Happened.run_id == run_id)
            .order_by(Happened.sequence)
        )
        return (await session.scalars(query)).all()
