"""Replies that are kept under an idempotency key."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
compatible = True


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "identity_replies",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("sealed_reply", sa.LargeBinary, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_identity_replies_expire_time", "identity_replies", ["expire_time"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("identity_replies")
