"""identity's tables. Times are microseconds since 1970; `migrations` makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

from services.runtime.replies import replies_table

metadata = MetaData()

replies = replies_table("identity", metadata)

tenants = Table(
    "identity_tenants",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("create_time", BigInteger, nullable=False),
)

users = Table(
    "identity_users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
)

login_failures = Table(
    "identity_login_failures",
    metadata,
    Column("email_key", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_time", BigInteger, nullable=False),
    Column("blocked_until", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
)

refresh_tokens = Table(
    "identity_refresh_tokens",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("login_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("spent_time", BigInteger),
)

api_keys = Table(
    "identity_api_keys",
    metadata,
    Column("api_key_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("revoke_time", BigInteger),
)

revocations = Table(
    "identity_revocations",
    metadata,
    Column("credential_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
)

signing_keys = Table(
    "identity_signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("generation", Integer, nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("sealed_private_key", LargeBinary, nullable=False),
    Column("sign_from", BigInteger, nullable=False),
    Column("publish_until", BigInteger, nullable=False),
)

audit_entries = Table(
    "identity_audit_entries",
    metadata,
    Column("audit_entry_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
)

counters = Table(
    "identity_counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
