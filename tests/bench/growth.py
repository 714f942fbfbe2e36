"""P15: what a call costs as tenants and rows grow, on SQLite and on PostgreSQL.

Each size is an installation of its own, all of one database's at the same time, and rounds go
through them in turn. One caller asks one call after another over gRPC, so that the median time of
a call is its cost. Tenants come by the mesh's assertions: each call is another tenant's.
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.history.v1 import history_service_pb2 as history
from plexus.history.v1 import session_pb2

from services.packaged import OWNER, ROLE, PackagedPostgres
from services.runtime.context import mesh_principal
from services.runtime.credentials import MeshSigner
from services.runtime.crypto import MasterKey
from services.runtime.db import open_database
from services.runtime.interceptors.policies import ASSERTION_KEY
from services.runtime.settings import Settings
from tests.bench import plot, requests, seeding
from tests.bench.load import Job
from tests.bench.process import load, started
from tests.bench.rounds import ROUNDS, Report, Row, say

_ROWS = (1_000, 10_000, 100_000, 1_000_000)
_TENANTS = (1, 10, 100, 1_000)
# While the other grows.
_FIXED_TENANTS, _FIXED_ROWS = 10, 100_000
_SECONDS = 0.5
_MARK = "0" * 20
_SAMPLES = 400
Request = tuple[bytes, bytes]


@dataclass(frozen=True)
class Size:
    """So many tenants and messages."""

    tenants: int
    rows: int


@dataclass(frozen=True)
class Installed:
    """An installation of a size."""

    size: Size
    socket: Path
    signer: MeshSigner


_CALLS = ("list sessions", "list messages", "get a run", "append a message")


async def measure(folder: Path, report: Report) -> None:
    """Both databases, one after the other."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for kind in ("SQLite", "PostgreSQL"):
        async with AsyncExitStack() as stack:
            postgres = None
            if kind == "PostgreSQL":
                postgres = PackagedPostgres(folder / "postgres")
                # As root it has a folder elsewhere, which nobody else would clear away.
                stack.callback(shutil.rmtree, postgres.folder, ignore_errors=True)
                stack.push_async_callback(postgres.stop)
                await postgres.start()
            sizes = {Size(_FIXED_TENANTS, rows) for rows in _ROWS}
            sizes |= {Size(tenants, _FIXED_ROWS) for tenants in _TENANTS}
            installed = []
            for size in sorted(sizes, key=lambda each: (each.rows, each.tenants)):
                say(f"    P15 {kind}: {size.tenants} tenants, {size.rows:,} messages …")
                place = folder / kind / f"{size.tenants}-{size.rows}"
                installed.append(await stack.enter_async_context(_installed(place, size, postgres)))
            costs = await _costs(kind, installed)
        curves |= _rows(report, kind, costs)
    plot.draw(curves)


@asynccontextmanager
async def _installed(
    folder: Path, size: Size, postgres: PackagedPostgres | None
) -> AsyncIterator[Installed]:
    environment = {"PLEXUS_DATA_DIR": str(folder)}
    if postgres is not None:
        name = f"bench_{size.tenants}_{size.rows}"
        await postgres.make_database(name)
        environment["PLEXUS_DATABASE_URL"] = postgres.url(ROLE, name)
        environment["PLEXUS_DATABASE_OWNER_URL"] = postgres.url(OWNER, name)
    # Started twice: tables are made, filled while nobody looks, and then served.
    async with started("tests.bench.serving", "whole", environment=environment):
        pass
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "database_url": environment.get("PLEXUS_DATABASE_OWNER_URL", ""),
        }
    )
    database = open_database(settings)
    await seeding.seed(database, size.rows, size.tenants)
    await database.close()
    signer = MeshSigner(MasterKey.load(settings.master_key).derive("mesh"))
    async with started("tests.bench.serving", "whole", environment=environment):
        yield Installed(size, settings.socket, signer)


async def _costs(kind: str, installed: list[Installed]) -> dict[Size, dict[str, float]]:
    """The median over the rounds of the median time of each call."""
    found: dict[Size, dict[str, list[float]]] = {
        each.size: {call: [] for call in _CALLS} for each in installed
    }
    for number in range(ROUNDS):
        for call in _CALLS:
            for each in installed if number % 2 == 0 else installed[::-1]:
                made = _requests(call, each, random.Random(number))
                outcome = await load(
                    Job(
                        "grpc",
                        str(each.socket),
                        [made],
                        seconds=_SECONDS,
                        warm=0.15,
                        fresh=_MARK.encode(),
                    )
                )
                found[each.size][call].append(outcome.p50)
        say(f"    P15 {kind}, round {number + 1} of {ROUNDS}")
    return {
        size: {call: statistics.median(times) for call, times in calls.items()}
        for size, calls in found.items()
    }


def _requests(call: str, installed: Installed, chance: random.Random) -> list[Request]:
    """Some calls of random tenants about random rows of theirs."""
    size, made = installed.size, []
    sessions = max(size.tenants, size.rows // seeding.MESSAGES_PER_SESSION)
    runs = max(size.tenants, size.rows // seeding.MESSAGES_PER_RUN)
    for _ in range(_SAMPLES):
        tenant = chance.randrange(size.tenants)
        session = tenant + size.tenants * chance.randrange(sessions // size.tenants)
        run = tenant + size.tenants * chance.randrange(runs // size.tenants)
        assertion = installed.signer.sign(mesh_principal(f"ten_bench_{tenant}", "usr_1"))
        path, message = _call(call, f"ses_{session}", seeding.run_id(run))
        metadata = {ASSERTION_KEY.replace("-", "_"): assertion}
        made.append(requests.grpc(path, message, **metadata))
    return made


def _call(call: str, session: str, run: str) -> tuple[str, bytes]:
    service = "/plexus.history.v1.HistoryService"
    match call:
        case "list sessions":
            listed = history.ListSessionsRequest(page_size=20)
            return f"{service}/ListSessions", listed.SerializeToString()
        case "list messages":
            messages = history.ListMessagesRequest(session_id=session, page_size=20)
            return f"{service}/ListMessages", messages.SerializeToString()
        case "get a run":
            got = agents.GetRunRequest(run_id=run)
            return "/plexus.agents.v1.AgentsService/GetRun", got.SerializeToString()
        case _:
            message = session_pb2.Message(
                message_id=f"msg_new_{_MARK}",
                session_id=session,
                role=session_pb2.AUTHOR_ROLE_USER,
                text="Another message.",
            )
            added = history.AppendMessageRequest(message=message)
            return f"{service}/AppendMessage", added.SerializeToString()


def _rows(
    report: Report, kind: str, costs: dict[Size, dict[str, float]]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Rows of the table, and the curves of the plot."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    by_rows = [(rows, Size(_FIXED_TENANTS, rows)) for rows in _ROWS]
    by_tenants = [(tenants, Size(tenants, _FIXED_ROWS)) for tenants in _TENANTS]
    for axis, sizes in (("messages", by_rows), ("tenants", by_tenants)):
        curve = {
            call: [(number, costs[size][call] * 1000) for number, size in sizes] for call in _CALLS
        }
        curves[f"{kind}, {axis}"] = curve
        worst, ratio = max(
            ((call, max(points)[1] / points[0][1]) for call, points in curve.items()),
            key=lambda each: each[1],
        )
        first, last = curve[worst][0], curve[worst][-1]
        report.rows.append(
            Row(
                f"P15 {kind}",
                f"a call at {last[0]:,} {axis} against one at {first[0]:,}; the worst: {worst}",
                f"{last[1]:.2f} ms",
                f"{first[1]:.2f} ms",
                ratio,
                "<= 1.20",
                "; ".join(
                    f"{call} {points[-1][1] / points[0][1]:.2f}x" for call, points in curve.items()
                ),
            )
        )
    return curves
