"""Summaries of sessions, who makes them, and facts that wait for memory."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
compatible = True


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "history_consolidations",
        sa.Column("session_id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("keep_messages", sa.Integer, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("dropped", sa.JSON, nullable=False),
        sa.Column("through_place", sa.Integer, nullable=False),
        sa.Column("through_message_id", sa.String(64), nullable=False),
        sa.Column("tokens_before", sa.Integer, nullable=False),
        sa.Column("tokens_after", sa.Integer, nullable=False),
        sa.Column("proposed_count", sa.Integer, nullable=False),
        sa.Column("failure", sa.String(500), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
    )
    running = sa.text("state = 1")
    op.create_index(
        "history_consolidations_running",
        "history_consolidations",
        ["update_time"],
        sqlite_where=running,
        postgresql_where=running,
    )
    op.create_table(
        "history_summaries",
        sa.Column("session_id", sa.String(64), primary_key=True),
        sa.Column("through_place", sa.Integer, primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("through_message_id", sa.String(64), nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "history_proposals",
        sa.Column("session_id", sa.String(64), primary_key=True),
        sa.Column("through_place", sa.Integer, primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_time", sa.BigInteger, nullable=False),
    )
    op.create_index("history_proposals_due", "history_proposals", ["due_time"])
    op.create_table(
        "history_owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("instance", sa.String(128), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("history_owners")
    op.drop_table("history_proposals")
    op.drop_table("history_summaries")
    op.drop_table("history_consolidations")
