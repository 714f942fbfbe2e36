"""What a call of memory costs as a space grows: read, read as of then, one memory, diff, commit.

One space on each database is filled by commits of 500 records, and measured at each size on the
way, in this process and without a socket: what grows is what the store does. A size is reached, or
the time is over and the table says how far it came. `MEMORY_ROWS=1000000` asks for more and
`MEMORY_SECONDS` gives it time.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.memory.domain.values import MAIN, At, Commit
from services.packaged import OWNER, ROLE, PackagedPostgres
from services.runtime.context import Principal
from services.runtime.db import Database, SqliteDatabase
from services.runtime.db.postgres import PostgresDatabase
from tests.bench import plot
from tests.bench.rounds import Report, Row, say
from tests.services.memory.house import House, built

_MOST_ROWS = int(os.environ.get("MEMORY_ROWS") or 1_000_000)
_SECONDS = float(os.environ.get("MEMORY_SECONDS") or 120.0)
_SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_AT_ONCE = 500
_SAMPLES = 40
_WHO = Principal("ten_bench", "usr_bench", "tok_bench", frozenset({2}))
_WORDS = [
    "".join(random.Random(number).choices("aeioubdfglmnprst", k=6)) for number in range(2_000)
]
Curves = dict[str, list[tuple[int, float]]]


async def measure(folder: Path, report: Report) -> None:
    """Both databases, one after the other."""
    curves: dict[str, Curves] = {}
    database: Database = SqliteDatabase(folder / "memory.db")
    curves["SQLite"] = await _grown("SQLite", database)
    await database.close()
    postgres = PackagedPostgres(folder / "postgres")
    try:
        await postgres.start()
        await postgres.make_database("bench")
        database = PostgresDatabase(
            postgres.url(ROLE, "bench"), owner_url=postgres.url(OWNER, "bench")
        )
        curves["PostgreSQL"] = await _grown("PostgreSQL", database)
        await database.close()
    finally:
        await postgres.stop()
        shutil.rmtree(postgres.folder, ignore_errors=True)
    for kind, calls in curves.items():
        _rows(report, kind, calls)
    plot.memory(curves)


async def _grown(kind: str, database: Database) -> Curves:
    """The median time of each call in milliseconds, at each size that was reached."""
    house = await built(database)
    chance = random.Random(1)
    curves: Curves = {}
    made: list[Commit] = []
    ids: list[str] = []
    began = time.monotonic()
    for size in _SIZES:
        while len(ids) < min(size, _MOST_ROWS) and time.monotonic() - began < _SECONDS:
            commit, stored = await house.store(_WHO, *(_text(chance) for _ in range(_AT_ONCE)))
            assert commit is not None
            made.append(commit)
            ids += [each.memory_id for each in stored]
        if len(ids) < size:
            break
        for call, work in _calls(house, chance, made, ids).items():
            curves.setdefault(call, []).append((size, await _median(work)))
        told = ", ".join(f"{call} {points[-1][1]:.2f}" for call, points in curves.items())
        rate = len(ids) / (time.monotonic() - began)
        say(f"    {kind}: {size:,} memories, {len(made):,} commits, {rate:,.0f}/s; ms: {told}")
    return curves


def _calls(
    house: House, chance: random.Random, made: list[Commit], ids: list[str]
) -> dict[str, Callable[[], Awaitable[object]]]:
    def some() -> At:
        return At(commit_id=chance.choice(made[-1000:]).commit_id)

    async def commit() -> None:
        before, _ = await house.store(_WHO, _text(chance))
        assert before is not None
        made.append(before)

    return {
        "page at the head": lambda: house.browsing.memories(_WHO, "", At(), 50, ""),
        "page as of then": lambda: house.browsing.memories(
            _WHO, "", At(time=chance.choice(made).create_time), 50, ""
        ),
        "one memory": lambda: house.browsing.memory(_WHO, chance.choice(ids), At()),
        "one memory as of then": lambda: house.browsing.memory(
            _WHO, chance.choice(ids[:_AT_ONCE]), some()
        ),
        "commit of one": commit,
        "diff of a commit": lambda: house.browsing.diff(
            _WHO, "", At(commit_id=made[-2].commit_id), At(branch=MAIN), 50, ""
        ),
    }


async def _median(work: Callable[[], Awaitable[object]]) -> float:
    for _ in range(5):
        await work()
    times = []
    for _ in range(_SAMPLES):
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def _text(chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=12))


def _rows(report: Report, kind: str, calls: Curves) -> None:
    for call, points in calls.items():
        first, last = points[0], points[-1]
        report.rows.append(
            Row(
                f"memory {kind}",
                f"{call}: at {last[0]:,} memories against at {first[0]:,}",
                f"{last[1]:.2f} ms",
                f"{first[1]:.2f} ms",
                last[1] / first[1],
                "<= 1.20",
                ", ".join(f"{size:,}: {ms:.2f} ms" for size, ms in points),
            )
        )
