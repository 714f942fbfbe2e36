"""Kill -9 of PostgreSQL under load, and what its clients make of it.

What was acknowledged is there afterwards, the first call succeeds soon after the server answers
again, no connection is left behind, and no caller reads what the driver said.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.identity.v1 import identity_service_pb2 as identity

from services.runtime.errors import NotFound
from tests.e2e.conftest import PASSWORD, new_email
from tests.faults.load import Load, load
from tests.faults.processes import (
    DATABASE,
    GATEWAY,
    Installation,
    descendants,
    installed,
    kill,
    longest_wait,
    waited,
)
from tests.faults.stored import Stored, judge
from tests.faults.suite import FULL, Suite, running, sized, until_shown
from tests.faults.told import NOT_NOW, Findings, percentile, spread
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

KILLS = sized(2, 20)
CLIENTS = sized(6, 12)
WORDS = tuple(f"word{number} " for number in range(12))
FIRST_SUCCESS_SECONDS = 1.0
# As `database_connections` has it, for each process of a module, and one for its lease.
_CONNECTIONS = 8 + 1
_LINGERING = (
    "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
    "AND clock_timestamp() - state_change > interval '0.5 s'"
)
_COUNT = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'plexus'"
_BETWEEN_SECONDS = sized((0.3, 0.8), (0.5, 1.5))
_PAUSE = 0.02
_NEVER_SECONDS = sized(15.0, 60.0)
# What a defect keeps from ever succeeding is not waited for as long.
_PLANTED_NEVER_SECONDS = 5.0


@dataclass
class Writes:
    """Accounts that were made and acknowledged, beside the runs of a load."""

    work: Load
    acknowledged: list[str] = field(default_factory=list)

    async def register(self) -> None:
        """Make one account."""
        email = new_email()
        await self.work.grpc.unary(
            "identity.v1.IdentityService/RegisterUser",
            identity.RegisterUserRequest(email=email, password=PASSWORD, display_name="Ada"),
            identity.RegisterUserResponse,
        )
        self.acknowledged.append(email)

    async def look_for_nothing(self) -> None:
        """A transaction that ends in an error of ours: it too gives its connection back."""
        with contextlib.suppress(NotFound):
            await self.work.grpc.unary(
                "agents.v1.AgentsService/GetRun",
                agents.GetRunRequest(run_id="run_of_nobody"),
                agents.GetRunResponse,
            )

    async def again_and_again(self, call: Callable[[], Awaitable[object]]) -> None:
        """Do something until the load ends; a refusal is looked at."""
        while not self.work.stopping:
            try:
                await call()
            except NOT_NOW as error:
                self.work.found.refused(error, "a call beside the runs")
            await asyncio.sleep(0.05)


async def answering(url: str) -> float:
    """Wait until the server answers; returns when that was."""
    while True:
        try:
            connection = await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(_PAUSE)
        else:
            await connection.close()
            return time.monotonic()


async def kill_database(
    suite: Suite, mesh: Installation, writes: Writes, found: Findings, never: float
) -> list[float]:
    """End the server; returns how long each kind of call took to succeed once it answered.

    That is net of the longest wait of a process for a processor, the gateway's too.
    """
    server = mesh.one(DATABASE)
    assert server is not None
    own = descendants(server)
    whole = suite.chance.random() < 0.5
    suite.note("fault", server=server, whole=whole)
    for pid in (server, *own) if whole else (server,):
        kill(pid)
    back = await answering(mesh.database_url)

    async def first(call: Callable[[], Awaitable[object]]) -> float:
        while True:
            try:
                await call()
            except NOT_NOW as error:
                found.refused(error, "first success")
                await asyncio.sleep(_PAUSE)
            else:
                return time.monotonic() - back

    kinds = (
        writes.register,
        lambda: writes.work.ask("history"),
        lambda: writes.work.ask("agents"),
    )
    pids = [*mesh.modules().values(), *filter(None, [mesh.one(GATEWAY)])]
    before = {pid: waited(pid) for pid in pids}
    async with asyncio.timeout(never):
        seconds = await asyncio.gather(*map(first, kinds))
    waits = longest_wait(pids, before)
    suite.note("recovered", seconds=seconds, waited=waits)
    return [max(0.0, each - waits) for each in seconds]


async def look_at_pool(mesh: Installation, found: Findings) -> int:
    """Whether connections were given back; returns how many there are."""
    await asyncio.sleep(1)
    connection = await asyncpg.connect(mesh.database_url)
    try:
        count = int(await connection.fetchval(_COUNT))
        lingering = int(await connection.fetchval(_LINGERING))
    finally:
        await connection.close()
    if count > len(mesh.modules()) * _CONNECTIONS:
        found.add("connections", f"{count} are open")
    if lingering:
        found.add("idle in transaction", f"{lingering} of {count}")
    return count


async def look_for_accounts(mesh: Installation, writes: Writes, found: Findings) -> None:
    """Whether every account that was acknowledged is there."""
    connection = await asyncpg.connect(mesh.database_url)
    try:
        rows = await connection.fetch("SELECT email FROM identity.identity_users")
    finally:
        await connection.close()
    missing = set(writes.acknowledged) - {row["email"] for row in rows}
    if missing:
        found.add("lost", f"accounts: {sorted(missing)[:5]}")


async def trial(
    suite: Suite, folder: Path, *defects: str, kills: int, never: float = _NEVER_SECONDS
) -> tuple[Findings, list[float]]:
    """One installation whose database is killed; what was found wrong, and first successes."""
    found, firsts = Findings(suite), list[float]()
    async with ScriptedOpenAi() as model:
        model.script = good(WORDS, pace=0.03)
        settings = {"replicas": "agents:2", "llm_url": model.url, "llm_model": "scripted"}
        async with installed(folder, *defects, **settings) as mesh:
            async with load(mesh, found, clients=CLIENTS, limit=1_000_000) as work:
                writes = Writes(work)
                beside = [
                    asyncio.create_task(writes.again_and_again(call))
                    for call in (writes.register, writes.look_for_nothing)
                ]
                for _ in range(kills):
                    await asyncio.sleep(suite.chance.uniform(*_BETWEEN_SECONDS))
                    with contextlib.suppress(TimeoutError):
                        firsts += await kill_database(suite, mesh, writes, found, never)
                await work.finish(2 * never)
                await asyncio.gather(*beside)
            connections = await look_at_pool(mesh, found)
            await look_for_accounts(mesh, writes, found)
            endings = judge(work.told, await Stored.read(mesh.database_url), "".join(WORDS), found)
    if len(firsts) < 3 * kills:
        found.add("no success", f"{len(firsts)} first successes of {3 * kills}")
    suite.say(
        f"{kills} kills during {len(work.told)} runs and {len(writes.acknowledged)} accounts; "
        f"first success {spread(firsts)} after the server answers; {connections} connections; "
        f"{dict(endings)}; refusals {dict(found.refusals)}; {dict(found.kinds)}"
    )
    return found, firsts


@pytest.mark.timeout(900 if FULL else 120)
async def test_nothing_acknowledged_is_lost_with_the_database(tmp_path: Path) -> None:
    with running("killed-database") as suite:
        found, firsts = await trial(suite, tmp_path / "data", kills=KILLS)
        found.require_none()
        assert found.refusals, "kills that nobody met would have tried nothing"
        assert percentile(firsts, 0.95) < FIRST_SUCCESS_SECONDS


# Defects, and what shows each.
_SHOWN = {
    "commit_errors_are_swallowed": {"lost"},
    "drivers_text_is_passed_on": {"raw text"},
    "connections_are_not_given_back": {"idle in transaction", "no success", "hangs"},
}


async def _unseen(suite: Suite, folder: Path, defect: str, attempt: int) -> str:
    found, _ = await trial(
        suite, folder / f"{defect}-{attempt}", defect, kills=2, never=_PLANTED_NEVER_SECONDS
    )
    return "" if found.kinds.keys() & _SHOWN[defect] else f"{defect}: {found.kinds}"


@pytest.mark.timeout(600 if FULL else 300)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("killed-database-planted") as suite:
        for defect in suite.some(_SHOWN, 1):
            await until_shown(partial(_unseen, suite, tmp_path, defect))
