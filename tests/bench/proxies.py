"""P1, P2, P3 and P5: a model behind a proxy, ours and LiteLLM's.

Both proxies speak OpenAI's protocol to the same scripted model and to the same load. Ours has
everything on: Envoy, tokens, tenants, limits, the ledger on the disk. LiteLLM's has one worker, one
key, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from tests.bench import requests
from tests.bench.edge import edge
from tests.bench.load import Job, Outcome
from tests.bench.process import ROOT, clean, family, started
from tests.bench.rounds import Report, Row, interleaved, median, rate, ratio, shares
from tests.bench.users import installation
from tests.e2e.mesh import free_port

_PEER = ROOT / ".venv" / "peers" / "bin" / "litellm"
_KEY = "sk-bench"
_TOKENS = 50
_MANY, _STREAMS = 32, 16
_READY_SECONDS = 120.0
_PATH = "/v1/chat/completions"
_SAID = [{"role": "user", "content": "Say something that takes a few words."}]
_CONFIG = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "{url}", api_key: none}}
litellm_settings: {{set_verbose: false, request_timeout: 60, num_retries: 0}}
general_settings: {{master_key: {key}, disable_spend_logs: true}}
"""


@dataclass(frozen=True)
class Proxies:
    """Two proxies and what they stand before: for each an address, a key and a model's name."""

    sides: dict[str, tuple[str, str, str]]
    pids: dict[str, list[int]]
    ready: dict[str, float]


@asynccontextmanager
async def proxies(folder: Path, tokens: int, pace: int = 0) -> AsyncIterator[Proxies]:
    """Both of them before a scripted model, which writes so many tokens a second; 0 is at once."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        port = free_port()
        model = await enter(started("tests.bench.model", str(port), str(tokens), str(pace)))
        url = f"http://127.0.0.1:{port}/v1"
        began = time.monotonic()
        settings = {
            "PLEXUS_LLM_URL": url,
            "PLEXUS_LLM_MODEL": "bench",
            "PLEXUS_LLM_MAX_CONCURRENCY": "1000",
        }
        ours = await enter(installation(folder / "data", 1, settings))
        address, envoy = await enter(
            edge(folder / "edge", ours.socket, folder / "none.sock", ours.jwks, strict=True)
        )
        ready = time.monotonic() - began
        peer_address, peer, peer_ready = await enter(_litellm(folder, url))
        yield Proxies(
            sides={
                "ours": (address, ours.members[0].token, "openai/bench"),
                "peer": (peer_address, _KEY, "bench"),
                "model": (f"127.0.0.1:{port}", "", "bench"),
            },
            pids={"server": [ours.pid], "envoy": family(envoy), "peer": peer, "model": [model]},
            ready={"ours": ready, "peer": peer_ready},
        )


def asking(token: str, model: str, *, stream: bool) -> tuple[bytes, bytes]:
    """A request for a completion."""
    body = {"model": model, "messages": _SAID, "stream": stream}
    return requests.http("POST", _PATH, token=token, body=body)


async def measure(folder: Path, report: Report) -> None:
    """Requests a second, what a proxy adds, tokens a second, and what it takes to be there."""
    async with proxies(folder, _TOKENS) as both:
        found = {}
        for name, title, callers, stream in (
            ("many", f"P1, {_MANY} callers", _MANY, False),
            ("one", "P2, one caller", 1, False),
            ("burst", f"P3, {_STREAMS} callers", _STREAMS, True),
        ):
            jobs = {side: _job(*each, callers, both, stream) for side, each in both.sides.items()}
            found[name] = await interleaved(title, jobs)
        held = _resident(both.pids["server"] + both.pids["envoy"])
        peer_held = _resident(both.pids["peer"])
    _rows(report, found)
    report.rows.append(
        Row(
            "P5",
            "memory of gateway and router after the load",
            f"{held / 1e6:.0f} MB",
            f"LiteLLM, one worker {peer_held / 1e6:.0f} MB",
            held / peer_held,
            "<= 0.4",
            "Envoy, every module, gRPC and SQLAlchemy",
        )
    )
    report.rows.append(
        Row(
            "P5 ready",
            "time to ready, gateway included",
            f"{both.ready['ours']:.1f} s",
            f"LiteLLM {both.ready['peer']:.1f} s",
            both.ready["ours"] / both.ready["peer"],
            "<= 0.2",
            "imports and migrations",
        )
    )


def _job(address: str, token: str, model: str, callers: int, both: Proxies, stream: bool) -> Job:
    request = asking(token, model, stream=stream)
    must = b"[DONE]" if stream else b"usage"
    return Job("http", address, [[request]] * callers, seconds=2.0, must=must, pids=both.pids)


@asynccontextmanager
async def _litellm(folder: Path, url: str) -> AsyncIterator[tuple[str, list[int], float]]:
    """LiteLLM's proxy: its address, its processes, and the seconds until it answered."""
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(url=url, key=_KEY))
    port = free_port()
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(str(_PEER), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1"),
        env={**clean({}), "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION",
             "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await _answers(f"http://127.0.0.1:{port}/health/liveliness")
        ready = time.monotonic() - began
        yield f"127.0.0.1:{port}", family(process.pid), ready
    finally:
        for each in family(process.pid):
            psutil.Process(each).kill()
        await process.wait()


async def _answers(url: str) -> None:
    end = time.monotonic() + _READY_SECONDS
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if time.monotonic() > end:
                raise RuntimeError("LiteLLM did not start")
            await asyncio.sleep(0.1)


def _resident(pids: list[int]) -> int:
    """Bytes in memory, shared pages counted once."""
    return sum(psutil.Process(each).memory_full_info().pss for each in pids)


def _rows(report: Report, found: dict[str, dict[str, list[Outcome]]]) -> None:
    parts = {"server": "the server", "envoy": "Envoy", "client": "the load"}
    many, one, burst = found["many"], found["one"], found["burst"]
    report.rows.append(
        Row(
            "P1",
            f"a completion through the proxy, {_MANY} callers",
            f"{median(many['ours'], rate):,.0f}/s",
            f"LiteLLM {median(many['peer'], rate):,.0f}/s",
            ratio(many["ours"], many["peer"], rate),
            ">= 10",
            "of a core: " + shares(many["ours"], parts),
        )
    )
    bare = median(one["model"], _p50)
    added = {side: median(one[side], _p50) - bare for side in ("ours", "peer")}
    report.rows.append(
        Row(
            "P2",
            "what the proxy adds for one caller, p50",
            f"{added['ours'] * 1000:.2f} ms",
            f"LiteLLM {added['peer'] * 1000:.2f} ms",
            added["ours"] / added["peer"],
            "<= 0.15",
            f"the model alone answers in {bare * 1000:.2f} ms",
        )
    )
    report.rows.append(
        Row(
            "P3",
            f"tokens of burst streams, {_STREAMS} callers",
            f"{median(burst['ours'], rate) * _TOKENS:,.0f} tokens/s",
            f"LiteLLM {median(burst['peer'], rate) * _TOKENS:,.0f} tokens/s",
            ratio(burst["ours"], burst["peer"], rate),
            ">= 40",
            "of a core: " + shares(burst["ours"], parts),
        )
    )


def _p50(outcome: Outcome) -> float:
    return outcome.p50
