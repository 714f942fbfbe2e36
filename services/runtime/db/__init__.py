"""The database: transactions that commit once, reads that cannot write, each for some tenants.

Two databases behind one interface: an SQLite file for a single process, PostgreSQL for many.
"""

from __future__ import annotations

from services.runtime.db.base import (
    EVERYONE,
    Conflict,
    Connection,
    Database,
    DatabaseUnfit,
    Whose,
    upsert,
)
from services.runtime.db.sqlite import DatabaseDamaged, SqliteDatabase, check_file
from services.runtime.settings import Settings

__all__ = [
    "EVERYONE",
    "Conflict",
    "Connection",
    "Database",
    "DatabaseDamaged",
    "DatabaseUnfit",
    "SqliteDatabase",
    "Whose",
    "check_file",
    "open_database",
    "upsert",
]


def open_database(settings: Settings) -> Database:
    """The installation's database; nothing is connected yet.

    Raises:
        DatabaseUnfit: Its URL is not one of PostgreSQL's.
    """
    if not settings.database_url.get_secret_value():
        return SqliteDatabase(settings.database)
    from services.runtime.db.postgres import PostgresDatabase  # only where it is used

    return PostgresDatabase(
        settings.database_url.get_secret_value(),
        owner_url=settings.database_owner_url.get_secret_value(),
        connections=settings.database_connections,
    )
