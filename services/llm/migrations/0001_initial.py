"""Providers, routes, the ledger and budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
compatible = True

_ID = sa.String(64)


def upgrade() -> None:
    """Make the tables."""
    _configuration()
    _ledger()
    op.create_table(
        "llm_replies",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("sealed_reply", sa.LargeBinary, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_index("llm_replies_expire_time", "llm_replies", ["expire_time"])
    op.create_table(
        "llm_owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("instance", sa.String(128), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )


def _configuration() -> None:
    op.create_table(
        "llm_providers",
        sa.Column("provider_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("base_url", sa.String(500), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary, nullable=False),
        sa.Column("key_hint", sa.String(4), nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("updated_by", _ID, nullable=False),
    )
    op.create_index("llm_providers_name", "llm_providers", ["tenant_id", "name"], unique=True)
    op.create_table(
        "llm_provider_versions",
        sa.Column("provider_id", _ID, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table(
        "llm_routes",
        sa.Column("route_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("task_classes", sa.JSON, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
    )
    op.create_index("llm_routes_name", "llm_routes", ["tenant_id", "name"], unique=True)
    op.create_table(
        "llm_budgets",
        sa.Column("budget_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("subject", sa.Integer, nullable=False),
        sa.Column("subject_id", _ID, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("max_cost", sa.BigInteger, nullable=False),
        sa.Column("max_tokens", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    subject = ["tenant_id", "subject", "subject_id", "period"]
    op.create_index("llm_budgets_subject", "llm_budgets", subject, unique=True)


def _ledger() -> None:
    op.create_table(
        "llm_calls",
        sa.Column("call_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("agent_id", _ID, nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("reserved_cost", sa.BigInteger, nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False),
        sa.Column("price_input", sa.BigInteger, nullable=False),
        sa.Column("price_output", sa.BigInteger, nullable=False),
    )
    under_way = sa.text("state = 1")
    for name, columns in (("tenant", ["tenant_id"]), ("owner", ["owner"])):
        op.create_index(
            f"llm_calls_{name}",
            "llm_calls",
            columns,
            sqlite_where=under_way,
            postgresql_where=under_way,
        )
    op.create_index("llm_calls_end_time", "llm_calls", ["end_time"])
    counts = ("calls", "failed_calls", "input_tokens", "output_tokens", "cost", "estimated_calls")
    op.create_table(
        "llm_usage_days",
        sa.Column("tenant_id", _ID, primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("agent_id", _ID, primary_key=True),
        sa.Column("user_id", _ID, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in counts),
    )
    op.create_table(
        "llm_spent_days",
        sa.Column("tenant_id", _ID, primary_key=True),
        sa.Column("subject", sa.Integer, primary_key=True),
        sa.Column("subject_id", _ID, primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "llm_answers",
        sa.Column("tenant_id", _ID, primary_key=True),
        sa.Column("user_id", _ID, primary_key=True),
        sa.Column("idempotency_key", sa.String(128), primary_key=True),
        sa.Column("call_id", _ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sealed_answer", sa.LargeBinary),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_index("llm_answers_expire_time", "llm_answers", ["expire_time"])


def downgrade() -> None:
    """Drop them."""
    for name in (
        *("answers", "spent_days", "usage_days", "calls", "budgets", "routes"),
        *("provider_versions", "providers", "owners", "replies"),
    ):
        op.drop_table(f"llm_{name}")
