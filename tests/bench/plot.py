"""The curves of growth, as a picture in the repository."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("growth.svg")


def draw(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """One panel a curve's title, one line a call: milliseconds over how many there are."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # Text stays text, and the same curves give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "plexus"})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), constrained_layout=True)
    for (title, calls), axis in zip(curves.items(), axes.flat, strict=True):
        for call, points in calls.items():
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=call)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.set_ylabel("ms a call")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(FILE, metadata={"Date": None})
