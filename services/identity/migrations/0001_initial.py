"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# In the order in which they can be dropped.
_TABLES = (
    "identity_counters",
    "identity_audit_entries",
    "identity_signing_keys",
    "identity_revocations",
    "identity_api_keys",
    "identity_refresh_tokens",
    "identity_login_failures",
    "identity_users",
    "identity_tenants",
)

# The audit log only grows, whoever has hold of the database's connection.
_APPEND_ONLY = {
    "sqlite": (
        """CREATE TRIGGER identity_audit_entries_no_update BEFORE UPDATE ON identity_audit_entries
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
        """CREATE TRIGGER identity_audit_entries_no_delete BEFORE DELETE ON identity_audit_entries
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION identity_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$""",
        """CREATE TRIGGER identity_audit_entries_append_only
        BEFORE UPDATE OR DELETE OR TRUNCATE ON identity_audit_entries
        FOR EACH STATEMENT EXECUTE FUNCTION identity_refuse_change()""",
    ),
}


def upgrade() -> None:
    """Make the tables."""
    _people()
    _credentials()
    _installation()
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables, and what they hold with them."""
    for table in _TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION identity_refuse_change()")


def _people() -> None:
    op.create_table(
        "identity_tenants",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "identity_users",
        sa.Column("user_id", sa.Text, primary_key=True),
        _tenant(),
        sa.Column("email", sa.Text, nullable=False, unique=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "identity_login_failures",
        sa.Column("email_key", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_time", sa.BigInteger, nullable=False),
        sa.Column("blocked_until", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    _index("login_failures", "expire_time")
    # The order in which rows are given up when there are too many.
    _index("login_failures", "failures", "last_time")


def _credentials() -> None:
    op.create_table(
        "identity_refresh_tokens",
        sa.Column("token_hash", sa.Text, primary_key=True),
        sa.Column("login_id", sa.Text, nullable=False),
        _tenant(),
        _user(),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.Column("spent_time", sa.BigInteger),
    )
    _index("refresh_tokens", "login_id")
    _index("refresh_tokens", "expire_time")
    op.create_table(
        "identity_api_keys",
        sa.Column("api_key_id", sa.Text, primary_key=True),
        _tenant(),
        _user(),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.Column("revoke_time", sa.BigInteger),
    )
    _index("api_keys", "tenant_id", "create_time", "api_key_id")
    _index("api_keys", "expire_time")
    op.create_table(
        "identity_revocations",
        sa.Column("credential_id", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
    _index("revocations", "expire_time")


def _installation() -> None:
    op.create_table(
        "identity_signing_keys",
        sa.Column("kid", sa.Text, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False, unique=True),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("sealed_private_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_from", sa.BigInteger, nullable=False),
        sa.Column("publish_until", sa.BigInteger, nullable=False),
    )
    # No reference to another table: an entry stays when what it tells of is gone.
    op.create_table(
        "identity_audit_entries",
        sa.Column("audit_entry_id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
    )
    _index("audit_entries", "tenant_id", "time", "audit_entry_id")
    counters = op.create_table(
        "identity_counters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(
        counters, [{"name": "revocations", "value": 0}, {"name": "registrations", "value": 0}]
    )


def _tenant() -> sa.Column[str]:
    reference = sa.ForeignKey("identity_tenants.tenant_id")
    return sa.Column("tenant_id", sa.Text, reference, nullable=False)


def _user() -> sa.Column[str]:
    return sa.Column("user_id", sa.Text, sa.ForeignKey("identity_users.user_id"), nullable=False)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_identity_{table}_{columns[0]}", f"identity_{table}", list(columns))
