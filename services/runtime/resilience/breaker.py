"""A circuit breaker (Nygard, "Release It!"): who does not answer is left alone for a moment."""

from __future__ import annotations

import time
from enum import IntEnum

from services.runtime.resilience.window import Clock, Window

# Short, since gRPC itself looks for a lost peer once a second: longer would only delay recovery.
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 1.0
# A probe that hears nothing for so long does not keep others from trying.
_PROBE_SECONDS = 1.0
_WINDOW_SECONDS = 10.0
_LEAST_CALLS = 20
_FAILED_SHARE = 0.5


class State(IntEnum):
    """What a breaker does with a call."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens when half of the calls in ten seconds failed, and lets one through to see.

    Each call that may pass gets a ticket and gives it back with its outcome. A ticket of an
    earlier state counts for nothing: what began before the breaker opened does not close it.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.opened = 0
        self._clock = clock
        self._window = Window(_WINDOW_SECONDS, clock=clock)
        self._state = State.CLOSED
        self._until = 0.0
        self._pause = _FIRST_PAUSE
        self._ticket = 0
        self._since = 0
        self._probe: int | None = None
        self._probe_ends = 0.0

    @property
    def state(self) -> State:
        """What it does with a call now."""
        if self._state is State.OPEN and self._clock() >= self._until:
            return State.HALF_OPEN
        return self._state

    def blocked(self) -> float:
        """For how many seconds calls are refused; 0 where one may pass."""
        if self._state is State.CLOSED:
            return 0.0
        now = self._clock()
        if self._state is State.OPEN:
            return max(0.0, self._until - now)
        return 0.0 if self._probe is None else max(0.0, self._probe_ends - now)

    def enter(self) -> int | None:
        """A ticket for a call that begins now; None where it must not."""
        if self._state is State.CLOSED:
            return self._ticket
        if self.blocked():
            return None
        self._ticket += 1
        if self._state is State.OPEN:
            self._state = State.HALF_OPEN
            self._since = self._ticket
        self._probe = self._ticket
        self._probe_ends = self._clock() + _PROBE_SECONDS
        return self._ticket

    def leave(self, ticket: int, good: bool | None) -> None:
        """Take a ticket back.

        Args:
            ticket: What `enter` gave.
            good: Whether the callee could be reached; None where the call says nothing about it.
        """
        if ticket < self._since:
            return
        if self._state is State.CLOSED:
            self._count(good)
        elif self._state is State.HALF_OPEN:
            if good:
                self._close()
            elif good is not None:
                self._open(min(self._pause * 2, _LONGEST_PAUSE))
            elif ticket == self._probe:
                self._probe = None

    def _count(self, good: bool | None) -> None:
        if good is None:
            return
        self._window.add(good, not good)
        bad, calls = self._window.bad, self._window.good + self._window.bad
        if not good and calls >= _LEAST_CALLS and bad >= calls * _FAILED_SHARE:
            self.opened += 1
            self._open(_FIRST_PAUSE)

    def _open(self, pause: float) -> None:
        self._state = State.OPEN
        self._pause = pause
        self._until = self._clock() + pause
        self._turn()

    def _close(self) -> None:
        self._state = State.CLOSED
        self._window.clear()
        self._turn()

    def _turn(self) -> None:
        self._ticket += 1
        self._since = self._ticket
        self._probe = None
