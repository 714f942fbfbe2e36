"""Which process carries a run, and until when it is believed to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
# Who knows of no owners takes up runs that others carry.
compatible = False


def upgrade() -> None:
    """Runs from before belong to nobody, and are taken up by whoever looks first."""
    op.create_table(
        "agents_owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("instance", sa.String(128), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.add_column(
        "agents_runs", sa.Column("owner", sa.String(200), nullable=False, server_default="")
    )
    op.add_column("agents_runs", sa.Column("cancel_by", sa.String(64)))
    op.create_index(
        "agents_runs_owner",
        "agents_runs",
        ["owner"],
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )


def downgrade() -> None:
    """Forget it."""
    op.drop_index("agents_runs_owner", "agents_runs")
    op.drop_column("agents_runs", "cancel_by")
    op.drop_column("agents_runs", "owner")
    op.drop_table("agents_owners")
