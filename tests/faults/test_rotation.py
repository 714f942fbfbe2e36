"""Keys are replaced and tables are brought up to date: nobody's call fails, and all is readable."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2

from services.runtime.db import SqliteDatabase
from services.runtime.errors import PlexusError
from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import ROOT
from tests.faults.rotation import Rotated, User
from tests.faults.suite import FULL, Suite, running, sized
from tests.faults.world import FaultyMesh

_SECONDS = sized(10.0, 60.0)
_USERS = 4
_TOKEN_SECONDS = 7
_PERIOD_SECONDS = 4.0
# A defect has so long to show.
_PLANTED_SECONDS = 20.0
_REFUSED = "UNAUTHENTICATED"
# Everyone hears of a key within two seconds.
_LEAD_SECONDS = 3.0
_SETTINGS = {
    "access_token_seconds": str(_TOKEN_SECONDS),
    "signing_key_days": str(_PERIOD_SECONDS / 86_400),
    "signing_key_lead_seconds": str(_LEAD_SECONDS),
    "replicas": "identity-monitor:2,agents:2",
}
_RUNS = sized(5, 20)


async def rotated(
    suite: Suite, folder: Path, *defects: str, seconds: float, until: str = ""
) -> Rotated:
    """Users at work while keys come and go, for some time or until a call ends so."""
    made = Rotated(until)
    mesh = FaultyMesh(folder, *defects, shape="mesh", **_SETTINGS)
    await mesh.start()
    callers = [Grpc(mesh.url) for _ in range(_USERS)]
    # A token is used until shortly before it ends: by then there is a newer key.
    users = [User(suite, each, made, _TOKEN_SECONDS - 2.5) for each in callers]
    try:
        living = [asyncio.create_task(user.live()) for user in users]
        await asyncio.wait(living, timeout=seconds)
        for each in living:
            each.cancel()
        ends = await asyncio.gather(*living, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError | None) for end in ends), ends
    finally:
        for caller in callers:
            await caller.close()
        await mesh.kill()
    suite.say(str(made))
    return made


@pytest.mark.timeout(300 if FULL else 120)
async def test_nobody_notices_a_new_key(tmp_path: Path) -> None:
    with running("rotation") as suite:
        made = await rotated(suite, tmp_path / "data", seconds=_SECONDS)
        assert made.wrong == []
        assert len(made.kids) >= sized(2, 3)


@pytest.mark.timeout(120)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("rotation-planted") as suite:
        for defect in suite.some(("new_keys_sign_at_once", "old_keys_are_taken_back"), 1):
            made = await rotated(
                suite, tmp_path / defect, defect, seconds=_PLANTED_SECONDS, until=_REFUSED
            )
            assert _REFUSED in {each.rpartition(" ")[2] for each in made.wrong}, defect


async def answered(caller: Grpc, number: int) -> list[run_pb2.RunEvent]:
    """A run from its beginning to its end."""
    request = agents.ProcessRequest(input=f"Number {number}", idempotency_key=f"key {number}")
    stream = caller.stream("agents.v1.AgentsService/Process", request, run_pb2.RunEvent)
    return [event async for event in stream]


async def downgrade(mesh: FaultyMesh) -> None:
    """Take the newest step of agents' tables back, as its own `downgrade` has it."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    path = ROOT / "services" / "agents" / "migrations" / "0002_owners.py"
    step = compile(path.read_text(), str(path), "exec")
    database = SqliteDatabase(mesh.settings.database)
    try:
        async with database.migrating("agents") as connection:

            def work(sync: object) -> None:
                names: dict[str, object] = {}
                with Operations.context(MigrationContext.configure(sync)):  # type: ignore[arg-type]
                    exec(step, names)
                    names["downgrade"]()  # type: ignore[operator]

            await connection.run_sync(work)
            await connection.exec_driver_sql("UPDATE agents_alembic_version SET version_num='0001'")
    finally:
        await database.close()


async def an_older_program_refuses(folder: Path) -> None:
    """A program that does not know the newest tables says so, and touches nothing."""
    older = FaultyMesh(folder, "agents_of_yesterday")
    process = await older.spawn()
    output, _ = await process.communicate()
    assert process.returncode == 1
    assert "later version of Plexus (revision 0002)" in output.decode()


@pytest.mark.timeout(120)
async def test_an_upgrade_keeps_every_record(tmp_path: Path) -> None:
    mesh = FaultyMesh(tmp_path / "data")
    await mesh.start()
    caller = Grpc(mesh.url)
    await sign_up(caller)
    before = [await answered(caller, number) for number in range(_RUNS)]
    assert await mesh.stop() == 0
    await an_older_program_refuses(mesh.data_dir)
    await downgrade(mesh)
    # A run that was under way when the older program ended: it has no owner.
    under_way = before[0][0].run_id
    with contextlib.closing(sqlite3.connect(mesh.settings.database)) as file:
        file.execute(
            "UPDATE agents_runs SET state = 1, end_time = NULL WHERE run_id = ?", [under_way]
        )
        file.execute("DELETE FROM agents_run_events WHERE run_id = ? AND sequence > 1", [under_way])
        file.commit()
    await mesh.start()
    try:
        assert [await answered(caller, number) for number in range(1, _RUNS)] == before[1:]
        async with asyncio.timeout(3):
            ended = await answered(caller, 0)
        assert ended[0] == before[0][0]
        assert ended[-1].HasField("run_completed") or ended[-1].HasField("run_failed")
    finally:
        await caller.close()
        await mesh.kill()


@pytest.mark.timeout(60)
async def test_half_an_upgrade_shows(tmp_path: Path) -> None:
    mesh = FaultyMesh(tmp_path / "data", "a_column_is_forgotten")
    await mesh.start()
    caller = Grpc(mesh.url)
    try:
        await sign_up(caller)
        with pytest.raises(PlexusError):
            await answered(caller, 0)
    finally:
        await caller.close()
        await mesh.kill()
