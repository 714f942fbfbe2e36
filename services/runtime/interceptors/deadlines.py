"""Cutting off what takes longer than it may, without a timer for each call.

A timer of the event loop costs a call more than all its checks. So deadlines are kept in slots of a
twentieth of a second, and one timer looks at the slot whose time has come. Those that are far off
lie together, without slots: most are never needed, and a slot each would be held for ten minutes.
"""

from __future__ import annotations

import asyncio
import heapq

_SLOT_SECONDS = 0.05
_NEAR_SECONDS = 20.0
_SWEEP_SECONDS = 5.0


class Deadline:
    """Cancels a task at its time, as `asyncio.timeout_at` does."""

    __slots__ = ("_before", "_slot", "_struck", "_task", "when")

    def __init__(self, when: float, slot: set[Deadline]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.when = when
        self._task = task
        self._before = task.cancelling()
        self._struck = False
        self._slot = slot
        slot.add(self)

    def move(self, slot: set[Deadline]) -> None:
        """Lie in another slot."""
        self._slot.discard(self)
        self._slot = slot
        slot.add(self)

    def strike(self) -> None:
        """The time has come."""
        self._struck = True
        self._task.cancel()

    def passed(self, error: BaseException | None) -> bool:
        """Whether the work was cut off here, and by nobody else too; there is no deadline then."""
        if not self._struck:
            self._slot.discard(self)
            return False
        alone = self._task.uncancel() <= self._before
        return alone and isinstance(error, asyncio.CancelledError)


class Deadlines:
    """The deadlines of everything under way in one event loop."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Deadline]] = {}
        self._order: list[int] = []
        self._far: set[Deadline] = set()
        self._sweep = 0.0
        self._waiting = False

    def begin(self, when: float) -> Deadline:
        """Cut the current task off at a time of the event loop's, up to two slots late."""
        far = when - asyncio.get_running_loop().time() > _NEAR_SECONDS
        deadline = Deadline(when, self._far if far else self._slot(when))
        if not self._waiting:
            self._wait()
        return deadline

    def _slot(self, when: float) -> set[Deadline]:
        number = int(when / _SLOT_SECONDS) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heapq.heappush(self._order, number)
        return slot

    def _wait(self) -> None:
        self._waiting = True
        asyncio.get_running_loop().call_later(_SLOT_SECONDS, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._sweep:
            self._sweep = now + _SWEEP_SECONDS
            for deadline in [each for each in self._far if each.when - now <= _NEAR_SECONDS]:
                deadline.move(self._slot(deadline.when))
        while self._order and self._order[0] <= now / _SLOT_SECONDS:
            for deadline in self._slots.pop(heapq.heappop(self._order)):
                deadline.strike()
        self._waiting = False
        if self._order or self._far:
            self._wait()
