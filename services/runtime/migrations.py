"""Each module's schema, brought up to date by Alembic while no other process can be at it.

A module's steps are files in `services/<module>/migrations/`, in the order of their names, each
with Alembic's `revision`, `down_revision`, `upgrade` and `downgrade`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from services.runtime.db import EVERYONE, Database


class SchemaTooNew(Exception):
    """The database was written by a later version of this program."""


class SchemaTooOld(Exception):
    """The tables are missing or of an earlier version, and this process may not make them."""


def revisions(folder: Path) -> list[str]:
    """The revisions in a folder, oldest first, read without running them."""
    found = []
    for path in sorted(folder.glob("[0-9]*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "revision":
                found.append(str(ast.literal_eval(node.value)))
    return found


async def migrate(database: Database, module: str, folder: Path) -> None:
    """Bring a module's tables to the newest revision; nothing is imported when they are there.

    Raises:
        SchemaTooNew: The database is ahead of this program.
        SchemaTooOld: It is behind, and this process may not change it.
    """
    known = revisions(folder)
    table = f"{module}_alembic_version"
    async with database.migrating(module) as connection:
        if connection is not None:
            if not _is_newest(await connection.run_sync(_current, table), module, known):
                await connection.run_sync(_upgrade, table, folder)
            return
    async with database.read(EVERYONE) as connection:
        if not _is_newest(await connection.run_sync(_current, table), module, known):
            raise SchemaTooOld(f"the tables of {module} are not up to date: run `plexus migrate`")


def _is_newest(current: str | None, module: str, known: Sequence[str]) -> bool:
    if current is not None and current not in known:
        raise SchemaTooNew(
            f"the tables of {module} were made by a later version of Plexus "
            f"(revision {current}): start that version, or restore a backup"
        )
    return current == known[-1]


def _current(connection: Connection, table: str) -> str | None:
    if not connection.dialect.has_table(connection, table):
        return None
    return connection.execute(text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608


def _upgrade(connection: Connection, table: str, folder: Path) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])

    def steps(revision: object, _: object) -> list[object]:
        return list(script._upgrade_revs("head", revision))  # type: ignore[arg-type]

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, version_table=table)
        environment.run_migrations()
