"""History's tables."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, String, Table, Text

metadata = MetaData()

sessions = Table(
    "history_sessions",
    metadata,
    Column("session_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("title", String(200), nullable=False),
    Column("message_count", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
)

messages = Table(
    "history_messages",
    metadata,
    Column("session_id", String(64), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("message_id", String(64), nullable=False, unique=True),
    Column("tenant_id", String(64), nullable=False),
    Column("author", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("partial", Boolean, nullable=False),
    Column("create_time", BigInteger, nullable=False),
)
