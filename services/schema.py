"""Every module's tables, brought up to date at once: before the processes of a mesh start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.app import MODULES
from services.runtime import migrations
from services.runtime.db import open_database
from services.runtime.settings import Settings

_HERE = Path(__file__).parent


async def migrate(settings: Settings, say: Callable[[str], None]) -> None:
    """Bring the tables of all modules to the newest revision.

    Raises:
        SchemaTooNew: A later version of this program wrote them.
        SchemaTooOld: They are not up to date, and no owner's URL is set.
        DatabaseUnfit: The URL is not one of PostgreSQL's.
        Unavailable: The database does not answer.
    """
    database = open_database(settings)
    try:
        for module in MODULES:
            folder = _HERE / module / "migrations"
            if folder.is_dir():
                await migrations.migrate(database.of(module), module, folder)
                say(f"{module}: {migrations.revisions(folder)[-1]}")
    finally:
        await database.close()
