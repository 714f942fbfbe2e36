"""llm's tables. Times are microseconds since 1970, costs millionths of a US dollar."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from services.runtime.leases import owners_table
from services.runtime.replies import replies_table

metadata = MetaData()

replies = replies_table("llm", metadata)
owners = owners_table("llm", metadata)

providers = Table(
    "llm_providers",
    metadata,
    Column("provider_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("name", String(40), nullable=False),
    Column("base_url", String(500), nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("key_hint", String(4), nullable=False),
    Column("models", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("updated_by", String(64), nullable=False),
)

# What providers were; of their keys, the hints alone.
provider_versions = Table(
    "llm_provider_versions",
    metadata,
    Column("provider_id", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("data", JSON, nullable=False),
)

routes = Table(
    "llm_routes",
    metadata,
    Column("route_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("name", String(40), nullable=False),
    Column("task_classes", JSON, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("update_time", BigInteger, nullable=False),
)

# Calls under way and ended: one for each model that answered.
calls = Table(
    "llm_calls",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("state", Integer, nullable=False),
    Column("model", String(200), nullable=False),
    Column("day", String(10), nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("reserved_cost", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("price_input", BigInteger, nullable=False),
    Column("price_output", BigInteger, nullable=False),
)

# Ended calls, summed.
usage_days = Table(
    "llm_usage_days",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("agent_id", String(64), primary_key=True),
    Column("user_id", String(64), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("failed_calls", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("estimated_calls", BigInteger, nullable=False),
)

# The same for whom budgets are made: a budget must not add up a tenant's thousand users each time.
spent_days = Table(
    "llm_spent_days",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("subject", Integer, primary_key=True),
    Column("subject_id", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("cost", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)

budgets = Table(
    "llm_budgets",
    metadata,
    Column("budget_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("subject", Integer, nullable=False),
    Column("subject_id", String(64), nullable=False),
    Column("period", Integer, nullable=False),
    Column("max_cost", BigInteger, nullable=False),
    Column("max_tokens", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
)

# Answers kept under the key by which their caller may ask again; none while the first is written.
answers = Table(
    "llm_answers",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("user_id", String(64), primary_key=True),
    Column("idempotency_key", String(128), primary_key=True),
    Column("call_id", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("sealed_answer", LargeBinary),
    Column("expire_time", BigInteger, nullable=False),
)
