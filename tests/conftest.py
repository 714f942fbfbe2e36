"""Servers and databases for every test that needs one."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from services.packaged import PackagedPostgres
from tests.databases import Databases

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores it, and hands that on to those it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[PackagedPostgres]:
    """One PostgreSQL for all tests of this process. What it holds need not survive a power cut."""
    folder = Path(tempfile.mkdtemp(prefix="plexus-"))
    server = PackagedPostgres(folder, "fsync=off", "full_page_writes=off")
    await server.start()
    yield server
    await server.stop()
    for each in (folder, server.folder):
        shutil.rmtree(each, ignore_errors=True)


@pytest_asyncio.fixture
async def databases(tmp_path: Path, postgres: PackagedPostgres) -> AsyncIterator[Databases]:
    """Makes databases for one test."""
    found = Databases(tmp_path, postgres)
    yield found
    await found.close()
