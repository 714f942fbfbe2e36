"""P4: streams at the pace of a model, and a thousand of them at once.

What a token costs both proxies, and how much longer a reader waits for the next one than the model
itself would have it wait.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

from tests.bench import plot
from tests.bench.listen import Crowd, Heard
from tests.bench.process import ROOT
from tests.bench.proxies import Proxies, asking, proxies
from tests.bench.rounds import Report, Row, say

_PACE, _TOKENS = 50, 250
_FEW, _SOME = 32, 256
_SLOW_PACE, _SLOW_TOKENS, _CROWD = 3, 60, 1_000
_SHARES = [number / 1000 for number in range(1000)]


async def measure(folder: Path, report: Report) -> None:
    """CPU for each token, gaps, and a thousand readers."""
    for name in ("paced", "crowd"):
        (folder / name).mkdir()
    async with proxies(folder / "paced", _TOKENS, _PACE) as both:
        few = {side: await _heard(both, side, _FEW) for side in ("ours", "peer")}
        some = {side: await _heard(both, side, _SOME) for side in ("model", "ours")}
    async with proxies(folder / "crowd", _SLOW_TOKENS, _SLOW_PACE) as both:
        crowd = {side: await _heard(both, side, _CROWD) for side in ("model", "ours")}
    plot.gaps({side: [heard.gap(share) for share in _SHARES] for side, heard in crowd.items()})
    ours = (few["ours"].cpu["server"] + few["ours"].cpu["envoy"]) / few["ours"].events
    peer = few["peer"].cpu["peer"] / few["peer"].events
    report.rows.append(
        Row(
            "P4",
            f"CPU for each token of {_FEW} streams at {_PACE} tokens/s, Envoy included",
            f"{ours * 1e6:.0f} µs",
            f"LiteLLM {peer * 1e6:.0f} µs",
            ours / peer,
            "<= 0.25",
            f"Envoy {few['ours'].cpu['envoy'] / few['ours'].events * 1e6:.0f} µs of it",
        )
    )
    for key, found, goal in (("P4 gaps", some, "<= 1.5"), ("P4 crowd", crowd, "<= 1.5")):
        mine, own = found["ours"], found["model"]
        report.rows.append(
            Row(
                key,
                f"the gap before a token, p99, of {mine.whole} streams, {mine.broken} broken",
                f"{mine.gap(0.99) * 1000:.0f} ms",
                f"the model itself {own.gap(0.99) * 1000:.0f} ms",
                mine.gap(0.99) / own.gap(0.99),
                goal,
                f"{mine.held['server'] / 1e6:.0f} MB in the server while all are open",
            )
        )


async def _heard(both: Proxies, side: str, streams: int) -> Heard:
    address, token, model = both.sides[side]
    head, body = asking(token, model, stream=True)
    crowd = Crowd(address, head + body, streams, spread=2.0, pids=both.pids)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.listen"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(pickle.dumps(crowd))
    heard: Heard = pickle.loads(output)
    say(
        f"    P4, {streams} streams of {side}: {heard.events} events, {heard.broken} broken, "
        f"gap p50 {heard.gap(0.5) * 1000:.0f} ms, p99 {heard.gap(0.99) * 1000:.0f} ms"
    )
    return heard
