"""P8: events of runs over REST, as server-sent events.

Played back: the peer reads a run's events by the ORM and sends an event for each token; ours are of
a run whose model was slower than the log (a token an event) or faster (tokens are joined as they
wait). Tokens are counted, not events. Live: both ask the same scripted model; the peer relays what
it says, ours commits every event before it shows it, so that it can be watched again.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiosqlite

from tests.bench import orm, requests
from tests.bench.edge import edge
from tests.bench.load import Job, Outcome
from tests.bench.model import WORD
from tests.bench.process import family, started
from tests.bench.rounds import Report, Row, interleaved, median, rate, ratio, shares
from tests.bench.users import Installation, installation
from tests.e2e.mesh import free_port

TOKENS = 200
_CALLERS = 16
_MUST = b"run_completed"


async def measure(folder: Path, report: Report) -> None:
    """Tokens a second of many callers, and the first event of one."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        port = free_port()
        await enter(started("tests.bench.model", str(port), str(TOKENS)))
        model = {"PLEXUS_LLM_URL": f"http://127.0.0.1:{port}/v1", "PLEXUS_LLM_MODEL": "bench"}
        ours = await enter(installation(folder / "data", 1, model))
        socket = folder / "peer.sock"
        database = folder / "peer.db"
        await orm.make(database, _events(ours.members[0].tenant_id))
        arguments = (str(socket), str(ours.jwks), str(database), "0", model["PLEXUS_LLM_URL"])
        peer = await enter(started("tests.bench.peer", *arguments))
        where = await enter(edge(folder / "edge", ours.socket, socket, ours.jwks, strict=True))
        address, envoy = where
        pids = {"server": [ours.pid], "peer": [peer], "envoy": family(envoy)}
        played = await _record(ours)
        asked = {"input": "Say many tokens."}
        paths = {
            "live": ("POST", "/v1/agents/process", asked),
            "relay": ("POST", "/peer/relay", asked),
            "stored": ("GET", "/peer/stored?run=run_1", None),
            "memory": ("GET", f"/peer/memory?tokens={TOKENS}", None),
            **{name: ("GET", f"/v1/runs/{run}/events", None) for name, run in played.items()},
        }
        token = ours.members[0].token
        made = {
            side: requests.http(method, path, token=token, body=body)
            for side, (method, path, body) in paths.items()
        }
        many = {side: _job(address, each, _CALLERS, pids) for side, each in made.items()}
        one = {side: _job(address, each, 1, pids) for side, each in made.items()}
        _rows(
            report,
            await interleaved(f"P8, {_CALLERS} callers", many),
            await interleaved("P8, one caller", one),
        )


def _job(
    address: str, request: tuple[bytes, bytes], callers: int, pids: dict[str, list[int]]
) -> Job:
    return Job("http", address, [[request]] * callers, seconds=2.0, must=_MUST, pids=pids)


def _events(tenant_id: str) -> list[orm.Happened]:
    """A run of the peer's."""
    now = time.time_ns() // 1000
    return [
        orm.Happened(
            run_id="run_1",
            sequence=number,
            tenant_id=tenant_id,
            time=now,
            kind="text_delta",
            data={"text": WORD},
        )
        for number in range(1, TOKENS + 1)
    ]


async def _record(ours: Installation) -> dict[str, str]:
    """Two ended runs of the caller's: as a fast model leaves one, and one token an event."""
    now = time.time_ns() // 1000
    found = {}
    async with aiosqlite.connect(ours.folder / "plexus.db", timeout=10) as database:
        for name, pieces in (("joined", 8), ("single", TOKENS)):
            run = found[name] = f"run_bench_{name}"
            each = WORD * (TOKENS // pieces)
            happened = [("run_started", '{"session_id": "ses_1", "agent_id": "agt_1"}')]
            happened += [("text_delta", f'{{"text": "{each}"}}')] * pieces
            happened += [("run_completed", '{"message_id": "msg_1", "truncated": false}')]
            await database.execute(
                "INSERT INTO agents_runs (run_id, tenant_id, user_id, agent_id, session_id, input,"
                " state, output, last_sequence, digest, create_time, end_time, owner)"
                " VALUES (?, ?, ?, 'agt_1', ?, 'x', 2, ?, ?, '', ?, ?, 'nobody')",
                (
                    *(run, ours.members[0].tenant_id, ours.members[0].user_id, f"ses_{name}"),
                    *(WORD * TOKENS, len(happened), now, now),
                ),
            )
            await database.executemany(
                "INSERT INTO agents_run_events (run_id, tenant_id, sequence, time, kind, data)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (run, ours.members[0].tenant_id, number, now, kind, data)
                    for number, (kind, data) in enumerate(happened, 1)
                ],
            )
        await database.commit()
    return found


_WORK = {
    "joined": ("a stored run played back, tokens joined by 25 as a fast model's are", "stored"),
    "single": ("a stored run played back, a token an event", "stored"),
    "live": ("a run lived through, every event committed before it is shown", "relay"),
}
_SHARES = {"server": "the server", "envoy": "Envoy", "client": "the load"}
_PEERS = {"stored": "FastAPI SSE, async ORM", "relay": "FastAPI SSE, openai client"}


def _rows(report: Report, many: dict[str, list[Outcome]], one: dict[str, list[Outcome]]) -> None:
    memory = f"{median(many['memory'], rate) * TOKENS:,.0f} tokens/s"
    first = f"{median(one['memory'], _first) * 1000:.1f} ms"
    report.notes.append(f"P8: FastAPI's SSE from memory, without any work: {memory}, {first}.")
    for side, (work, peer) in _WORK.items():
        report.rows.append(
            Row(
                f"P8 {side}",
                work,
                f"{median(many[side], rate) * TOKENS:,.0f} tokens/s",
                f"{_PEERS[peer]} {median(many[peer], rate) * TOKENS:,.0f} tokens/s",
                ratio(many[side], many[peer], rate),
                ">= 1.5",
                "of a core: " + shares(many[side], _SHARES),
            )
        )
        report.rows.append(
            Row(
                f"P8 {side} first",
                "the first event of it, one caller",
                f"{median(one[side], _first) * 1000:.1f} ms",
                f"{median(one[peer], _first) * 1000:.1f} ms",
                ratio(one[side], one[peer], _first),
                "<= 1.5",
                "what is read or committed before it" if side == "live" else "two reads before it",
            )
        )


def _first(outcome: Outcome) -> float:
    return outcome.first
