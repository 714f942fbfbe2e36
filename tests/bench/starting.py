"""P13 and P14: from `make up` to the first answer, and what an idle installation takes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.bench.process import ROOT, clean, family
from tests.bench.rounds import ROUNDS, Report, Row, say
from tests.e2e.mesh import Mesh, free_port

_STARTS = 3
_IDLE_SECONDS = 4.0
_ACCOUNT = {"email": "ada@example.com", "password": "a long password"}
# What a start needs before it serves, and every package that something of ours may need.
_CORE = ("services.up", *(f"services.{name}.module" for name in ("identity", "llm", "history")))
_LAZY = (*_CORE, "services.agents.module", "services.monitor.module", "uvloop")
_EAGER = (
    *_LAZY,
    *("services.cli.root", "services.llm.providers.openai_compatible", "services.commands"),
    *("services.runtime.db.postgres", "services.runtime.shared.over_redis", "openai", "asyncpg"),
    *("redis.asyncio", "alembic.command", "alembic.autogenerate", "bpe_openai", "rich.console"),
    *("opentelemetry.sdk.trace.export", "opentelemetry.sdk.metrics.export", "grpc_tools.protoc"),
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    "opentelemetry.instrumentation.grpc",
    *("sqlalchemy.orm", "httpx2", "argon2", "click"),
)


async def measure(folder: Path, report: Report) -> None:
    """Both."""
    await _first_answer(folder, report)
    await _imports(report)
    for shape, text in (("embedded", "one process and Envoy"), ("mesh", "PostgreSQL included")):
        await _idle(folder, report, shape, text)


async def _first_answer(folder: Path, report: Report) -> None:
    took = []
    for number in range(_STARTS + 1):
        port = free_port()
        environment = clean({"PLEXUS_DATA_DIR": str(folder / "warm")})
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *("make", "up", f"PORT={port}"),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        path = "authenticate" if number else "register"
        body = _ACCOUNT if number else {**_ACCOUNT, "display_name": "Ada"}
        await _answered(f"http://127.0.0.1:{port}/v1/users/{path}", body)
        if number:  # the first one made the tables
            took.append(time.monotonic() - began)
            say(f"    P13, start {number} of {_STARTS}: {took[-1]:.2f} s")
        owner = json.loads((folder / "warm" / "lock").read_text())["pid"]
        os.kill(owner, signal.SIGINT)
        await process.wait()
    seconds = statistics.median(took)
    limit = "imports and the tables' check, then Envoy's first look at their health"
    report.rows.append(
        Row(
            "P13",
            "warm `make up` to the first answer (a login)",
            f"{seconds:.2f} s",
            "",
            seconds,
            "<= 5.0",
            limit,
            unit=" s",
        )
    )


async def _answered(url: str, body: dict[str, str]) -> None:
    """Ask until there is an answer that is not the gateway's own."""
    request = urllib.request.Request(url, json.dumps(body).encode())
    async with asyncio.timeout(90):
        while True:
            try:
                with await asyncio.to_thread(urllib.request.urlopen, request, timeout=20):
                    return
            except (OSError, urllib.error.HTTPError):
                await asyncio.sleep(0.02)


async def _imports(report: Report) -> None:
    """The lazy core, against every package at once."""
    took: dict[str, list[float]] = {"nothing": [], "lazy": [], "eager": []}
    for _ in range(ROUNDS):
        for name, modules in (("nothing", ()), ("lazy", _LAZY), ("eager", _EAGER)):
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", f"import {', '.join(('sys', *modules))}"), cwd=ROOT
            )
            if await process.wait() != 0:
                raise RuntimeError("an import failed")
            took[name].append(time.monotonic() - began)
    nothing, lazy, eager = (statistics.median(each) for each in took.values())
    report.rows.append(
        Row(
            "P13 imports",
            "what a start imports, Python's own start taken off",
            f"{lazy - nothing:.2f} s",
            f"everything eagerly {eager - nothing:.2f} s",
            (lazy - nothing) / (eager - nothing),
            "<= 0.25",
            "grpc, SQLAlchemy, pydantic and the contracts, which a start cannot do without",
        )
    )


async def _idle(folder: Path, report: Report, shape: str, text: str) -> None:
    mesh = Mesh(folder / f"idle-{shape}", shape)
    await mesh.start()
    try:
        await asyncio.sleep(_IDLE_SECONDS)
        processes = [psutil.Process(pid) for pid in family(mesh.pid)]
        resident = sum(each.memory_info().rss for each in processes) / 1e6
        own = _own_memory(processes) / 1e6
        say(f"    P14 {shape}: {own:.0f} MB, {resident:.0f} MB with shared pages in each process")
    finally:
        await mesh.stop()
    report.rows.append(
        Row(
            f"P14 {shape}",
            f"idle memory of SHAPE={shape}, {text}: {len(processes)} processes",
            f"{own:.0f} MB ({resident:.0f} MB with shared pages counted in each process)",
            "",
            own,
            "<= 300",
            "a Python with grpc, SQLAlchemy and the contracts; Envoy",
            unit=" MB",
        )
    )


def _own_memory(processes: list[psutil.Process]) -> float:
    """Private pages of all, and shared ones once for each program."""
    shared: dict[str, float] = {}
    private = 0.0
    for each in processes:
        memory = each.memory_full_info()
        private += memory.uss
        shared[each.exe()] = max(shared.get(each.exe(), 0.0), memory.rss - memory.uss)
    return private + sum(shared.values())
