"""No room: what is there is read, what is new is refused by name, and nothing is broken by it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from services.packaged import OWNER, PackagedPostgres
from tests.faults.disks import MOST_WRITES, WAITS, Disk, Full, Life, disk, living
from tests.faults.suite import FULL, Suite, running, sized
from tests.faults.world import FaultyMesh

_HEAL_SECONDS = 5.0
# The index's files are large and mostly empty, which a file system in memory does not know.
_MEGABYTES = 256
_ROUNDS = sized(1, 5)
_REFUSED = "RESOURCE_EXHAUSTED disk"
# How often each write is tried where none is expected to be refused.
_SOME = 20


async def filled(suite: Suite, life: Life, full: Disk, most: int = MOST_WRITES) -> Full:
    """Fill it, try everything, make room, and see how soon all is well."""
    await life.suffer(full, _ROUNDS, most)
    full.free()
    await life.heal(4 * _HEAL_SECONDS)
    await life.look_back()
    made = life.made
    suite.say(
        f"reads that failed: {made.reads}; writes: {made.writes}; healed after "
        f"{made.healed:.2f} s; {len(made.acknowledged)} acknowledged, lost: {made.lost}"
    )
    return made


def check(made: Full) -> None:
    """What must hold of a store without room."""
    assert made.reads == []
    run = made.writes.pop("run")
    assert run in (_REFUSED, WAITS)
    assert {each for each in made.writes.values() if each} == {_REFUSED}
    assert made.healed < _HEAL_SECONDS
    assert made.lost == []


@pytest.mark.timeout(600 if FULL else 120)
async def test_sqlite(tmp_path: Path) -> None:
    with running("disk-sqlite") as suite, disk(tmp_path / "data", _MEGABYTES) as full:
        mesh = FaultyMesh(tmp_path / "data")
        await mesh.start()
        try:
            async with living(suite, mesh) as life:
                made = await filled(suite, life, full)
                await mesh.kill()
                with contextlib.closing(sqlite3.connect(mesh.settings.database)) as file:
                    assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                await mesh.start()
                await life.look_back()
        finally:
            await mesh.kill()
        check(made)


@asynccontextmanager
async def on_small_disk(folder: Path) -> AsyncIterator[tuple[FaultyMesh, PackagedPostgres, Disk]]:
    """A mesh on a PostgreSQL whose data have a disk of their own."""
    server = PackagedPostgres(folder / "postgres")
    # Made first, for it is made beside its place and put there.
    await server.start()
    await server.stop()
    data, aside = server.folder / "data", server.folder / "aside"
    data.rename(aside)
    with disk(data, 160, f"uid={aside.stat().st_uid},gid={aside.stat().st_gid}") as full:
        copy = ["/bin/cp", "--archive", f"{aside}/.", str(data)]
        assert not await asyncio.to_thread(subprocess.call, copy)
        await server.start()
        mesh = FaultyMesh(
            folder / "data",
            shape="mesh",
            database_url=server.url(),
            database_owner_url=server.url(OWNER),
        )
        try:
            await mesh.start()
            yield mesh, server, full
        finally:
            await mesh.kill()
            await server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.mark.timeout(600 if FULL else 180)
async def test_postgresql(tmp_path: Path) -> None:
    with running("disk-postgresql") as suite:
        async with (
            on_small_disk(tmp_path) as (mesh, server, full),
            living(suite, mesh) as life,
        ):
            made = await filled(suite, life, full)
            server.kill()
            await server.wait()
            await server.start()
            connection = await asyncpg.connect(server.url("postgres"))
            # Reads every row, and makes every index again: a key that is there twice shows.
            await connection.execute("REINDEX DATABASE plexus")
            await connection.close()
            await life.heal(_HEAL_SECONDS)
            await life.look_back()
        check(made)


@pytest.mark.timeout(120)
async def test_what_is_no_store(tmp_path: Path) -> None:
    mesh = FaultyMesh(tmp_path / "data")
    with (
        running("disk-no-store") as suite,
        disk(mesh.settings.run_dir, 4) as run,
        disk(tmp_path / "data" / "logs", 4) as logs,
    ):
        await mesh.start()
        try:
            async with living(suite, mesh) as life:
                logs.fill()
                made = await filled(suite, life, run, _SOME)
        finally:
            await mesh.kill()
        assert made.reads == made.lost == []
        assert set(made.writes.values()) == {""}


@pytest.mark.timeout(120)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("disk-planted") as suite, disk(tmp_path / "data", _MEGABYTES) as full:
        mesh = FaultyMesh(tmp_path / "data", "full_is_a_surprise", "reads_write_too")
        await mesh.start()
        try:
            async with living(suite, mesh) as life:
                made = await filled(suite, life, full)
        finally:
            await mesh.kill()
        assert any("profile" in each for each in made.reads)
        assert _REFUSED not in made.writes.values()
