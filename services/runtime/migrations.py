"""Each module's schema, brought up to date by Alembic while no other process can be at it.

A module's steps are files in `services/<module>/migrations/`, in the order of their names, each
with Alembic's `revision`, `down_revision`, `upgrade` and `downgrade`, and besides `compatible`:
whether programs from before the step work on the tables after it, as they do where it only adds
what they may leave out. It is what makes a rolling upgrade possible, and the way back from one:
beside the tables stand the revisions of all programs that may serve from them.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from services.runtime.db import EVERYONE, Database

_SAID = ("revision", "compatible")


class SchemaTooNew(Exception):
    """The database was written by a later version of this program."""


class SchemaTooOld(Exception):
    """The tables are missing or of an earlier version, and this process may not make them."""


def revisions(folder: Path) -> list[str]:
    """The revisions in a folder, oldest first, read without running them."""
    return [str(step["revision"]) for step in _steps(folder)]


def _steps(folder: Path) -> list[dict[str, object]]:
    return [_constants(path) for path in sorted(folder.glob("[0-9]*.py"))]


def _constants(path: Path) -> dict[str, object]:
    return {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in _SAID
    }


def servers(folder: Path) -> list[str]:
    """The revisions of all programs that may serve from the newest tables, oldest first."""
    found: list[str] = []
    for step in _steps(folder):
        found = [*(found if step.get("compatible") else ()), str(step["revision"])]
    return found


async def migrate(database: Database, module: str, folder: Path) -> None:
    """Bring a module's tables to the newest revision; nothing is imported when they are there.

    Raises:
        SchemaTooNew: The database is ahead of this program.
        SchemaTooOld: It is behind, and this process may not change it.
    """
    known = revisions(folder)
    async with database.migrating(module) as connection:
        if connection is not None:
            if not await connection.run_sync(_may_serve, module, known):
                await connection.run_sync(_upgrade, module, folder)
            return
    async with database.read(EVERYONE) as connection:
        if not await connection.run_sync(_may_serve, module, known):
            raise SchemaTooOld(f"the tables of {module} are not up to date: run `plexus migrate`")


def _may_serve(connection: Connection, module: str, known: Sequence[str]) -> bool:
    """Whether a program that knows these revisions may, without a step more."""
    stored = _column(connection, f"{module}_alembic_version", "version_num")
    if not stored or stored[0] in known:
        return stored == [known[-1]]
    if known[-1] in _column(connection, f"{module}_served_by", "revision"):
        return True
    raise SchemaTooNew(
        f"the tables of {module} were made by a later version of Plexus "
        f"(revision {stored[0]}): start that version, or restore a backup"
    )


def _column(connection: Connection, table: str, column: str) -> list[str]:
    if not connection.dialect.has_table(connection, table):
        return []
    return list(connection.execute(text(f"SELECT {column} FROM {table}")).scalars())  # noqa: S608


def _upgrade(connection: Connection, module: str, folder: Path) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])

    def steps(revision: object, _: object) -> list[object]:
        return list(script._upgrade_revs("head", revision))  # type: ignore[arg-type]

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, version_table=f"{module}_alembic_version")
        environment.run_migrations()
    table = f"{module}_served_by"
    connection.execute(text(f"CREATE TABLE IF NOT EXISTS {table} (revision TEXT PRIMARY KEY)"))
    connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
    connection.execute(
        text(f"INSERT INTO {table} VALUES (:revision)"),  # noqa: S608
        [{"revision": each} for each in servers(folder)],
    )
