"""Agents' tables."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, MetaData, String, Table, Text

from services.runtime.leases import owners_table

metadata = MetaData()

agents = Table(
    "agents_agents",
    metadata,
    Column("agent_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("display_name", String(100), nullable=False),
    Column("instructions", Text, nullable=False),
    Column("model", String(200), nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("create_time", BigInteger, nullable=False),
)

runs = Table(
    "agents_runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("input", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("output", Text, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    Column("usage", JSON(none_as_null=True)),
    Column("last_sequence", Integer, nullable=False),
    Column("idempotency_key", String(128)),
    Column("digest", String(64), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("owner", String(200), nullable=False),
    Column("cancel_by", String(64)),
)

owners = owners_table("agents", metadata)

run_events = Table(
    "agents_run_events",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("data", JSON, nullable=False),
)
