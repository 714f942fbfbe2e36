"""P9: a durable write over REST.

UpdateProfile: it reads a user, changes it, adds an entry to the audit log and commits once, in each
call, and what is acknowledged is on the disk. Accepting a run would commit too, but a run goes on
after it; history's AppendMessage has no REST path. Each caller is another user, so that nobody
waits for a row.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench import orm, requests
from tests.bench.edge import edge
from tests.bench.load import Job, Outcome
from tests.bench.process import family, started
from tests.bench.rounds import Report, Row, interleaved, median, rate, ratio
from tests.bench.users import Member, installation

_CALLERS = 32
_SECONDS = 2.0
# The pool that SQLAlchemy makes by itself, where writers wait for SQLite's lock; and one
# connection, for which they queue as they do in Plexus.
_PEERS = {"default": 0, "queued": 1}


async def measure(folder: Path, report: Report) -> None:
    """Requests a second, and the slowest hundredth."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ours = await enter(installation(folder / "data", _CALLERS))
        jobs = {}
        pids = {"ours": [ours.pid]}
        for name, connections in _PEERS.items():
            database, socket = folder / f"{name}.db", folder / f"{name}.sock"
            await orm.make(database, [_account(each) for each in ours.members])
            peer = ("tests.bench.peer", str(socket), str(ours.jwks))
            pids[name] = [await enter(started(*peer, str(database), str(connections)))]
            run_dir = folder / f"edge-{name}"
            address, envoy = await enter(edge(run_dir, ours.socket, socket, ours.jwks, strict=True))
            pids["envoy"] = family(envoy)
            jobs[name] = _job(address, "/peer/write", ours.members)
            jobs["ours"] = _job(address, "/v1/users/profile", ours.members)
        for job in jobs.values():
            job.pids = pids
        found = await interleaved("P9", jobs)
    for name, text in (("default", "its own pool"), ("queued", "one connection")):
        _rows(report, found["ours"], found[name], name, text)


def _job(address: str, path: str, members: list[Member]) -> Job:
    # Two names in turn: a name that is there already would change nothing.
    made = [
        [
            requests.http("PUT", path, token=each.token, body={"display_name": name})
            for name in ("Ada Lovelace", "Grace Hopper")
        ]
        for each in members
    ]
    return Job("http", address, made, seconds=_SECONDS, warm=0.5)


def _account(member: Member) -> orm.Account:
    return orm.Account(
        user_id=member.user_id,
        tenant_id=member.tenant_id,
        email=member.email,
        display_name="Ada",
        roles="owner",
        create_time=1_760_000_000_000_000,
        version=1,
    )


def _rows(report: Report, ours: list[Outcome], peer: list[Outcome], name: str, text: str) -> None:
    key = "P9" if name == "default" else "P9 queued"
    busy = median(ours, lambda one: one.cpu["ours"] / one.seconds)
    limit = f"the module's process: {busy:.0%} of a core"
    report.rows += [
        Row(
            key,
            f"a durable write over REST (UpdateProfile), {_CALLERS} callers",
            f"{median(ours, rate):,.0f}/s, {_cost(ours, 'ours'):.0f} µs CPU",
            f"FastAPI, async ORM with {text} {median(peer, rate):,.0f}/s, "
            f"{_cost(peer, name):.0f} µs CPU",
            ratio(ours, peer, rate),
            ">= 4.0",
            limit,
        ),
        Row(
            f"{key} p99",
            "the slowest hundredth of them",
            f"{_p99(ours) * 1000:.0f} ms",
            f"{_p99(peer) * 1000:.0f} ms",
            ratio(ours, peer, lambda one: one.p99),
            "<= 0.10",
            limit,
        ),
    ]


def _cost(outcomes: list[Outcome], name: str) -> float:
    return median(outcomes, lambda one: one.cost(name)) * 1e6


def _p99(outcomes: list[Outcome]) -> float:
    return median(outcomes, lambda one: one.p99)
