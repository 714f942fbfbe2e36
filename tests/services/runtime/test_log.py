"""Lines reach the file: soon, what is serious at once, and within bounds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from services.runtime import log


def lines_to(file: Path) -> log._Lines:
    return log._Lines(log._File(file))


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_serious_is_there_at_once_with_all_before_it(tmp_path: Path) -> None:
    lines = lines_to(tmp_path / "log")
    for number in range(3):
        lines.note({"level": "info", "event": "rpc", "number": number})
    try:
        raise LookupError("why")
    except LookupError as error:
        lines.note({"level": "error", "event": "bad", "exc_info": error})
    found = read(tmp_path / "log")
    assert [each.get("number") for each in found] == [0, 1, 2, None]
    assert "LookupError: why" in found[3]["exception"]
    assert all(each["timestamp"].endswith("Z") for each in found)


def test_everything_else_is_there_soon(tmp_path: Path) -> None:
    lines_to(tmp_path / "log").note({"level": "info", "event": "rpc", "odd": {1, 2}})
    until = time.monotonic() + 10
    while not read(tmp_path / "log"):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert read(tmp_path / "log")[0]["odd"] == "{1, 2}"


def test_a_file_has_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_MAX_BYTES", 1000)
    lines = lines_to(tmp_path / "log")
    for number in range(100):
        lines.note({"level": "error", "event": "x" * 100, "number": number})
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + log._KEPT
    assert all(each.stat().st_size < 2000 for each in files)
    assert read(tmp_path / "log")[-1]["number"] == 99
