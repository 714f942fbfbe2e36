"""What identity keeps, one file a table, each function within a transaction that it is given.

Everything that belongs to a tenant is asked for with the tenant's id: SQLite has no row security.
"""

from services.identity.store import (
    api_keys,
    audit,
    login_failures,
    refresh_tokens,
    revocations,
    signing_keys,
    users,
)

__all__ = [
    "api_keys",
    "audit",
    "login_failures",
    "refresh_tokens",
    "revocations",
    "signing_keys",
    "users",
]
