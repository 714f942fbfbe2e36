"""Who keeps the index."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "context_owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("instance", sa.String(128), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "context_leader",
        sa.Column("duty", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("context_leader")
    op.drop_table("context_owners")
