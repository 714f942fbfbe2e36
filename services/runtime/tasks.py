"""Background work: started by name, restarted when it fails, stopped before what it stands on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from services.runtime import log

_logger = log.get(__name__)
_FIRST_DELAY = 0.1
_LAST_DELAY = 10.0
_AGAIN_SECONDS = 2.0


class Tasks:
    """The background tasks of a process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run something once; a failure is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep_running(
        self, name: str, work: Callable[[], Awaitable[None]], longest: float = _LAST_DELAY
    ) -> asyncio.Task[None]:
        """Run a loop until the process stops; after a failure again, with bounded back-off."""
        return self.start(name, self._forever(name, work, longest))

    async def _forever(
        self, name: str, work: Callable[[], Awaitable[None]], longest: float
    ) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY
        while True:
            began = loop.time()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop must go on
                _logger.warning("task_failed", task=name, error=repr(error), retry_in=delay)
            if loop.time() - began > delay:
                # It did work for a while. Delays that add up over failures far apart would keep
                # revocations away until no credential can be checked any more.
                delay = _FIRST_DELAY
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
            delay = min(delay * 2, longest)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error("task_failed", task=task.get_name(), exc_info=task.exception())

    async def stop(self) -> None:
        """Cancel everything and wait until it has ended."""
        await end(tuple(self._tasks))


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: a task group whose member fails in the moment in which it is cancelled
    raises the failure alone (Python 3.11 and 3.12), and a loop that survives failures goes on.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)
        await asyncio.gather(*done, return_exceptions=True)
