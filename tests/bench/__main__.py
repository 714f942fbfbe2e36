"""`python -m tests.bench [unary streams …]`: all measurements, or some.

All of them take about half an hour; the table goes to the terminal and into RESULTS.md. Some go
to the terminal alone.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import results
from tests.bench.rounds import Report, say

_ALL = (
    *("unary", "streams", "writes", "starting", "proxies", "paced", "growth"),
    *("memory", "index", "retrieval"),
)


async def _measure(names: tuple[str, ...]) -> Report:
    report = Report()
    # Short, for there are sockets in it.
    with tempfile.TemporaryDirectory(prefix="plexus-bench-") as folder:
        for name in names:
            began = time.monotonic()
            say(f"  {name}")
            place = Path(folder) / name
            place.mkdir()
            await importlib.import_module(f"tests.bench.{name}").measure(place, report)
            say(f"  {name} took {time.monotonic() - began:.0f} s")
    return report


def main() -> None:
    """Measure, tell, and keep."""
    names = tuple(sys.argv[1:]) or _ALL
    unknown = set(names) - set(_ALL)
    if unknown:
        sys.exit(f"There is no {', '.join(sorted(unknown))}; there are {', '.join(_ALL)}.")
    began = time.monotonic()
    report = asyncio.run(_measure(names))
    say(f"\n{results.table(report)}\n")
    if names == _ALL:
        results.write(report, time.monotonic() - began)
        say(f"Kept in {results.FILE}.")


if __name__ == "__main__":
    main()
