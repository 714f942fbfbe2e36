"""Context's tables: who keeps the index. What is in it is derived, and stands elsewhere."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table

from services.runtime.leases import owners_table

metadata = MetaData()

owners = owners_table("context", metadata)

leader = Table(
    "context_leader",
    metadata,
    Column("duty", String(40), primary_key=True),
    Column("owner", String(200), nullable=False),
)
