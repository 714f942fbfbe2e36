"""Garbage, floods, slowness and silence: the others are served, and everything is bounded."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults import garbage
from tests.faults.garbage import SILENT, SLOW, Attack, End, Target, carry_out
from tests.faults.rpcs import by_name
from tests.faults.suite import FULL, Suite, running, sized
from tests.faults.valid import valid
from tests.faults.wire import Mouth
from tests.faults.world import FaultyMesh, bearer, register, up

_SILENT = sized(300, 1000)
# A thousand connections at once, as many as are silent.
_EACH = sized(2, 14)
_MUCH = sized(100, 1000)
# The gateway's own bounds in the full form, seconds instead of half minutes in the short one.
_BOUNDS = sized(("bounds_are_short",), ())
_LIMIT_SECONDS = sized(11.0, 30.0)
# Five minutes are more than a test waits for; in the short form they are seconds too.
_IDLE = sized(garbage.IDLE, ())
_GROWTH = 50 * 1024 * 1024
_CALM_SECONDS = sized(1.0, 5.0)
_WORKERS = 4


@dataclass
class Others:
    """Well-behaved clients: how long each call took, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """In milliseconds."""
        return statistics.quantiles(self.seconds, n=100)[98] * 1000


@dataclass(frozen=True)
class Siege:
    """What came of it."""

    ends: list[End]
    calm: Others
    during: Others
    # Bytes that each process has grown by.
    growth: dict[str, int]

    @property
    def unbounded(self) -> Counter[str]:
        """What the server should have ended and did not, by what was done to it."""
        return Counter(end.attack.name for end in self.ends if end.unbounded)


@asynccontextmanager
async def others(mouth: Mouth, headers: Sequence[tuple[str, str]]) -> AsyncIterator[Others]:
    """Clients that call, one call after the other, while the block runs."""
    found = Others()

    async def client(number: int) -> None:
        way = ("grpc", "rest", "web")[number % 3]
        rpc = by_name("GetProfile")
        while True:
            answer = await mouth.call(way, rpc, valid(rpc.request), headers)
            found.seconds.append(answer.seconds)
            if not answer.ok:
                found.errors.append(f"{way}: {answer.code} {answer.reason} {answer.message}")
            await asyncio.sleep(0.005)

    clients = [asyncio.create_task(client(number)) for number in range(_WORKERS)]
    try:
        yield found
    finally:
        for each in clients:
            each.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        found.errors += [repr(e) for e in ended if not isinstance(e, asyncio.CancelledError)]


async def siege(
    suite: Suite, mesh: FaultyMesh, attacks: Sequence[Attack], limit: float = _LIMIT_SECONDS
) -> Siege:
    """Carry attacks out, all at once, beside the others."""
    mouth = mesh.mouth()
    _, tokens = await register(mouth, "good@example.com")
    _, bad = await register(mouth, "bad@example.com")
    headers = bearer(tokens.access_token)
    async with others(mouth, headers) as calm:
        await asyncio.sleep(_CALM_SECONDS)
    target = Target("/v1/users/profile", bad.access_token, suite.chance, _MUCH)
    order = list(attacks)
    suite.chance.shuffle(order)
    before = memory(mesh)
    async with others(mouth, headers) as during:
        ends = await asyncio.gather(
            *(carry_out(attack, mesh.port, target, limit) for attack in order)
        )
    await asyncio.sleep(0.5)
    after = memory(mesh)
    await mouth.close()
    made = Siege(
        ends,
        calm,
        during,
        {name: after[name] - before[name] for name in before.keys() & after.keys()},
    )
    _report(suite, made)
    return made


def _report(suite: Suite, made: Siege) -> None:
    slowest: dict[str, float] = {}
    for end in made.ends:
        taken = -1.0 if end.seconds is None else round(end.seconds, 2)
        suite.note(end.attack.name, seconds=taken, received=end.received)
        slowest[end.attack.name] = max(slowest.get(end.attack.name, -1.0), taken)
    left = sorted(name for name, seconds in slowest.items() if seconds < 0)
    megabytes = {name: f"{size / 2**20:.1f} MB" for name, size in made.growth.items()}
    suite.say(
        f"{len(made.ends)} connections; longest {max(slowest.values())} s; left open: {left}; "
        f"others: {len(made.during.seconds)} calls, p99 {made.during.p99:.1f} ms against "
        f"{made.calm.p99:.1f} ms calm, ratio {made.during.p99 / made.calm.p99:.2f}; "
        f"grown by {megabytes}"
    )


def memory(mesh: FaultyMesh) -> dict[str, int]:
    """Bytes that each process of the mesh took, without the pages of its files."""
    found = {"python": _resident(mesh.pid)}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(") ")
        except OSError:
            continue  # it ended meanwhile
        if int(rest.split()[1]) == mesh.pid:
            # Several have one name: those that read documents, and the index's.
            pid = stat.parent.name
            found[f"{name.partition('(')[2]} {pid}"] = _resident(int(pid))
    return found


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


@pytest.mark.timeout(600 if FULL else 120)
async def test_garbage_harms_nobody_else(tmp_path: Path) -> None:
    with running("garbage") as suite:
        async with up(tmp_path / "data", *_BOUNDS) as mesh:
            made = await siege(suite, mesh, (*garbage.ALL, *_IDLE) * _EACH)
        _check(made)


@pytest.mark.timeout(600 if FULL else 120)
async def test_silence_harms_nobody_else(tmp_path: Path) -> None:
    with running("silence") as suite:
        async with up(tmp_path / "data", *_BOUNDS) as mesh:
            made = await siege(suite, mesh, [SILENT] * _SILENT)
        _check(made)


def _check(made: Siege) -> None:
    assert not made.unbounded, made.unbounded
    assert made.during.errors == []
    assert len(made.during.seconds) > 20
    assert all(size < _GROWTH for size in made.growth.values()), made.growth


@pytest.mark.timeout(600 if FULL else 120)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("garbage-planted") as suite:
        began = time.monotonic()
        defects = ("nothing_is_bounded", "everything_is_kept")
        async with up(tmp_path / "data", *defects) as mesh:
            made = await siege(suite, mesh, SLOW * 3, limit=6)
        suite.note("done", seconds=time.monotonic() - began)
        assert set(made.unbounded) == {attack.name for attack in SLOW}
        assert made.growth["python"] > _GROWTH
