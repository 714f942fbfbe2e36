"""The databases that stores are tested on: SQLite, and a real PostgreSQL out of a package."""

from __future__ import annotations

import itertools
from pathlib import Path

from services.packaged import OWNER, ROLE, PackagedPostgres
from services.runtime.db import Database, SqliteDatabase
from services.runtime.db.postgres import PostgresDatabase

KINDS = ("sqlite", "postgresql")
_numbers = itertools.count()


class Databases:
    """Makes empty databases for one test, and closes them after it."""

    def __init__(self, folder: Path, postgres: PackagedPostgres) -> None:
        self._folder = folder
        self._postgres = postgres
        self._where: tuple[str, str] = ("", "")
        self._opened: list[Database] = []

    async def make(self, kind: str) -> Database:
        """An empty database."""
        name = f"test{next(_numbers)}"
        if kind == "postgresql":
            await self._postgres.make_database(name)
        self._where = (kind, name)
        return self.again()

    @property
    def name(self) -> str:
        """The name of the last one made."""
        return self._where[1]

    def again(self) -> Database:
        """The last one made, as another process has it."""
        kind, name = self._where
        opened: Database
        if kind == "postgresql":
            opened = PostgresDatabase(
                self._postgres.url(ROLE, name), owner_url=self._postgres.url(OWNER, name)
            )
        else:
            opened = SqliteDatabase(self._folder / f"{name}.db")
        self._opened.append(opened)
        return opened

    async def settings(self, kind: str) -> dict[str, str]:
        """Settings of an installation on an empty database."""
        if kind == "sqlite":
            return {}
        await self.make(kind)
        name = self.name
        return {
            "database_url": self._postgres.url(ROLE, name),
            "database_owner_url": self._postgres.url(OWNER, name),
        }

    async def close(self) -> None:
        """Close them all."""
        for each in self._opened:
            await each.close()
