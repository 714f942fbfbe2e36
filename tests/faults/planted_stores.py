"""Defects of the way to PostgreSQL that show when it goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tests.faults.planting import Plant, module, replace


def commit_errors_are_swallowed() -> None:
    """Whoever waits for a commit that failed hears that it was made."""
    postgres = module("runtime.db.postgres")

    def make(original: Any) -> Any:
        @asynccontextmanager
        async def write(self: Any, scope: str) -> AsyncIterator[Any]:
            async with self._begun(self._engine, scope) as connection:
                yield connection
                await asyncio.sleep(0.1)
                with contextlib.suppress(Exception):
                    await connection.commit()

        return write

    replace(postgres.PostgresDatabase, "_write", make)


def drivers_text_is_passed_on() -> None:
    """An error repeats what the driver said."""
    postgres = module("runtime.db.postgres")

    def make(original: Any) -> Any:
        @contextmanager
        def translated(**how: bool) -> Iterator[None]:
            try:
                with original(**how):
                    yield
            except postgres.Unavailable as error:
                raise postgres.Unavailable(f"{error.message} {error.__cause__!r}") from error

        return translated

    replace(postgres, "_translated", make)


def connections_are_not_given_back() -> None:
    """A transaction that fails keeps its connection."""
    postgres = module("runtime.db.postgres")
    kept: list[Any] = []

    def make(original: Any) -> Any:
        @asynccontextmanager
        async def begun(self: Any, engine: Any, scope: str) -> AsyncIterator[Any]:
            connection = await self._begin(engine, scope)
            kept.append(connection)
            with postgres._translated():
                yield connection
            await connection.close()
            kept.remove(connection)

        return begun

    replace(postgres.PostgresDatabase, "_begun", make)


DEFECTS: dict[str, Plant] = {
    each.__name__: each
    for each in (
        commit_errors_are_swallowed,
        drivers_text_is_passed_on,
        connections_are_not_given_back,
    )
}
