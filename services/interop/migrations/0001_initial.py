"""Responses of models, and which process writes them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
compatible = True

_ID = sa.String(64)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "interop_responses",
        sa.Column("response_id", _ID, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("previous_id", _ID, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("ending", sa.JSON(none_as_null=True)),
        sa.Column("cancel_asked", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger),
    )
    under_way = sa.text("end_time IS NULL")
    for name in ("tenant_id", "owner"):
        op.create_index(
            f"interop_responses_{name}",
            "interop_responses",
            [name],
            sqlite_where=under_way,
            postgresql_where=under_way,
        )
    op.create_index("interop_responses_create_time", "interop_responses", ["create_time"])
    op.create_table(
        "interop_response_pieces",
        sa.Column("response_id", _ID, primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table(
        "interop_owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("instance", sa.String(128), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for name in ("owners", "response_pieces", "responses"):
        op.drop_table(f"interop_{name}")
