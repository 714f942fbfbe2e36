"""The curves of growth and of gaps, as pictures in the repository."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("growth.svg")
GAPS = Path(__file__).with_name("gaps.svg")
MEMORY = Path(__file__).with_name("memory.svg")


def draw(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """One panel a curve's title, one line a call: milliseconds over how many there are."""
    _growth(curves, FILE, (2, 2), (9, 6))


def memory(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """The same over how many memories a space has, a panel a database."""
    _growth(curves, MEMORY, (1, 2), (9, 3.5))


def _growth(
    curves: dict[str, dict[str, list[tuple[int, float]]]],
    file: Path,
    panels: tuple[int, int],
    size: tuple[float, float],
) -> None:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(*panels, figsize=size, constrained_layout=True)
    for (title, calls), axis in zip(curves.items(), axes.flat, strict=True):
        for call, points in calls.items():
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=call)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.set_ylabel("ms a call")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(file, metadata={"Date": None})


def gaps(curves: dict[str, list[float]]) -> None:
    """How long readers wait for a token: for each share of the gaps, what it is not above."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(7, 4), constrained_layout=True)
    for name, found in curves.items():
        shares = [100 * number / len(found) for number in range(len(found))]
        axis.plot(shares, [each * 1000 for each in found], label=name)
    axis.set_xlabel("% of the gaps are shorter")
    axis.set_ylabel("ms before the next token")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(GAPS, metadata={"Date": None})


def _pyplot() -> Any:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # Text stays text, and the same curves give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "plexus"})
    return importlib.import_module("matplotlib.pyplot")
