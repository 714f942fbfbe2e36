"""What every suite of faults shares: its seed, its size, and the history it leaves when it fails.

`FAULTS_SEED=7` repeats a run, `FAULTS=full` takes the sizes of a release, and `FAULTS_HISTORY`
names the folder for the histories of failed suites instead of one among the temporary files. What
would take hours on a small machine ends in the full form when its time is over, and says how far it
came: `FAULTS_PATIENCE=20` gives it twenty times as long.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
FULL = os.environ.get("FAULTS") == "full"
_PATIENCE = float(os.environ.get("FAULTS_PATIENCE") or 1)
_ATTEMPTS = 3
_FOLDER = Path(os.environ.get("FAULTS_HISTORY") or Path(tempfile.gettempdir()) / "plexus-faults")


def sized(short: T, full: T) -> T:
    """The size for this run."""
    return full if FULL else short


def at_most(seconds: float) -> float:
    """So many seconds for what has no end of its own, or more for who has patience."""
    return seconds * _PATIENCE


class Suite:
    """One run of a suite.

    Attributes:
        seed: What repeats it.
        chance: Where everything that is left to chance comes from.
    """

    def __init__(self, name: str, seed: int, history: Path) -> None:
        self.seed = seed
        self.chance = random.Random(f"{name}/{seed}")
        self._began = time.monotonic()
        self._file = history.open("w")

    def note(self, what: str, **facts: Any) -> None:
        """Write down something that was done or seen."""
        at = round(time.monotonic() - self._began, 4)
        self._file.write(json.dumps({"at": at, "what": what, **facts}, default=repr) + "\n")

    def say(self, text: str) -> None:
        """Tell a person, who sees it with `pytest -s` and where the suite fails."""
        self.note("said", text=text)
        say(text)

    def some(self, items: Iterable[T], short: int) -> list[T]:
        """All of them in the full form, so many by chance in the short one."""
        everything = list(items)
        if FULL or len(everything) <= short:
            return everything
        return self.chance.sample(everything, short)

    def close(self) -> None:
        """No more is noted."""
        self._file.close()


def say(text: str) -> None:
    """One line for a person."""
    sys.stdout.write(text + "\n")


@contextmanager
def running(name: str) -> Iterator[Suite]:
    """A suite; what it noted is kept in a file if it fails."""
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(1 << 32))
    _FOLDER.mkdir(parents=True, exist_ok=True)
    history = _FOLDER / f"{name}-{seed}-{os.getpid()}.jsonl"
    suite = Suite(name, seed, history)
    say(f"{name}: FAULTS_SEED={seed} {'full' if FULL else 'short'}")
    try:
        yield suite
    except BaseException as error:
        suite.note("failed", error=str(error))
        suite.close()
        error.add_note(f"FAULTS_SEED={seed} repeats it; what was done is in {history}")
        raise
    suite.close()
    history.unlink()


async def until_shown(attempt: Callable[[int], Awaitable[object]]) -> None:
    """Let planted defects show: a fault may strike when nothing is under way that they could harm.

    Args:
        attempt: Tries once, and says what did not show, if anything.

    Raises:
        AssertionError: Something did not show, as often as it was tried.
    """
    for number in range(_ATTEMPTS):
        unseen = await attempt(number)
        if not unseen:
            return
    raise AssertionError(f"did not show in {_ATTEMPTS} attempts: {unseen}")


async def each(work: Iterable[T], do: Callable[[T], Awaitable[None]], workers: int = 16) -> None:
    """Do something for each, so many at a time; the first error ends it."""
    left = iter(work)

    async def worker() -> None:
        # One iterator for all: whoever is free takes the next.
        for item in left:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many items, the last one shorter."""
    left = iter(items)
    while batch := list(itertools.islice(left, size)):
        yield batch
