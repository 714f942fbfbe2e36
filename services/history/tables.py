"""History's tables."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, MetaData, String, Table, Text

from services.runtime.leases import owners_table

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

# The rolling summary of a session, one row each; `owner` is the process that works on it.
consolidations = Table(
    "history_consolidations",
    metadata,
    Column("session_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("state", Integer, nullable=False),
    Column("model", String(200), nullable=False),
    Column("keep_messages", Integer, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("dropped", JSON, nullable=False),
    Column("through_place", Integer, nullable=False),
    Column("through_message_id", String(64), nullable=False),
    Column("tokens_before", Integer, nullable=False),
    Column("tokens_after", Integer, nullable=False),
    Column("proposed_count", Integer, nullable=False),
    Column("failure", String(500), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", String(200), nullable=False),
    Column("update_time", BigInteger, nullable=False),
)

# Its newest versions, by the last message that each took in.
summaries = Table(
    "history_summaries",
    metadata,
    Column("session_id", String(64), primary_key=True),
    Column("through_place", Integer, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("through_message_id", String(64), nullable=False),
    Column("summary", JSON, nullable=False),
    Column("create_time", BigInteger, nullable=False),
)

# Facts that memory was not told yet, by the step that found them.
proposals = Table(
    "history_proposals",
    metadata,
    Column("session_id", String(64), primary_key=True),
    Column("through_place", Integer, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("findings", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_time", BigInteger, nullable=False),
)

owners = owners_table("history", metadata)
