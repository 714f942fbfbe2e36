"""identity served with everything real around it, once for all tests that do not change it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import services.identity
from services.runtime import migrations, server
from services.runtime.db import Database
from tests.databases import KINDS, Databases
from tests.services.identity.people import CHEAP_HASHING, Identity, serving

MIGRATIONS = Path(services.identity.__file__).parent / "migrations"


@pytest.fixture(scope="session", autouse=True)
def _cheap_and_quick() -> Iterator[None]:
    """Passwords that cost nothing, and stops for which no gateway has to notice."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CHEAP_HASHING.items():
            patch.setenv(name, value)
        patch.setattr(server, "NOTICE_SECONDS", 0.0)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def identity(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Identity]:
    async with serving(tmp_path_factory.mktemp("identity")) as found:
        yield found


@pytest_asyncio.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, databases: Databases) -> AsyncIterator[Database]:
    """The tables in each database that they can be kept in."""
    opened = (await databases.make(request.param)).of("identity")
    await migrations.migrate(opened, "identity", MIGRATIONS)
    yield opened
