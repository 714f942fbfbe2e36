"""Row security on PostgreSQL: what every table with a `tenant_id` gets, in every module.

The policy compares each row with the tenants that the transaction was opened for. It is forced, so
that it holds for the tables' owner too, and the role that serves may neither pass it by nor change
the tables.
"""

from __future__ import annotations

from sqlalchemy import text

from services.runtime.db.base import EVERYONE, Connection, DatabaseUnfit

# As sub-selects the server evaluates them once a statement, not once a row.
_TENANTS = "(SELECT string_to_array(current_setting('plexus.tenants', true), ','))"
_ALL = f"(SELECT current_setting('plexus.tenants', true) = '{EVERYONE}')"
_VISIBLE = f"{_ALL} OR tenant_id = ANY ({_TENANTS}::text[])"
_POLICY = "tenant_rows"
_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
_OF_MIGRATIONS = ("_alembic_version", "_served_by")
_TABLES = text(
    "SELECT c.relname AS name, c.relforcerowsecurity AS forced, "
    "EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' "
    "AND NOT a.attisdropped) AS of_tenants "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')"
)
# Being a member of such a role is as good as being it.
_ROLE = text(
    "SELECT EXISTS (SELECT FROM pg_roles WHERE (rolsuper OR rolbypassrls) "
    "AND pg_has_role(current_user, oid, 'MEMBER')) "
    "OR EXISTS (SELECT FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid "
    "WHERE p.polname = :policy AND pg_has_role(current_user, c.relowner, 'MEMBER'))"
)


async def secure(connection: Connection, schema: str, role: str) -> None:
    """Put row security on a schema's tables, and let a role read and write them.

    Args:
        connection: As the tables' owner.
        schema: The module's.
        role: The one that serves.
    """
    quoted = '"' + role.replace('"', '""') + '"'
    await connection.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO {quoted}'))
    for table in (await connection.execute(_TABLES, {"schema": schema})).all():
        name = f'"{schema}"."{table.name}"'
        rights = "SELECT" if table.name.endswith(_OF_MIGRATIONS) else _RIGHTS
        await connection.execute(text(f"GRANT {rights} ON {name} TO {quoted}"))
        if not table.of_tenants or table.forced:
            continue
        for change in ("ENABLE", "FORCE"):
            await connection.execute(text(f"ALTER TABLE {name} {change} ROW LEVEL SECURITY"))
        await connection.execute(text(f"CREATE POLICY {_POLICY} ON {name} USING ({_VISIBLE})"))


async def require_plain_role(connection: Connection) -> None:
    """Refuse a role for which row security does not hold.

    Raises:
        DatabaseUnfit: It is a superuser, passes by row security, or owns tables and could end it.
    """
    if (await connection.execute(_ROLE, {"policy": _POLICY})).scalar():
        raise DatabaseUnfit(
            "the role of PLEXUS_DATABASE_URL passes by row security: serve as a plain role "
            "(CREATE ROLE plexus LOGIN NOSUPERUSER NOBYPASSRLS) and put the owner of the tables "
            "into PLEXUS_DATABASE_OWNER_URL"
        )
