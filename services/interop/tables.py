"""Interop's tables: responses of models."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, MetaData, String, Table

from services.runtime.leases import owners_table

metadata = MetaData()

responses = Table(
    "interop_responses",
    metadata,
    Column("response_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("previous_id", String(64), nullable=False),
    Column("request", JSON, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("ending", JSON(none_as_null=True)),
    Column("cancel_asked", Boolean, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
)

# What was committed together of an answer is one row.
pieces = Table(
    "interop_response_pieces",
    metadata,
    Column("response_id", String(64), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("data", JSON, nullable=False),
)

owners = owners_table("interop", metadata)
