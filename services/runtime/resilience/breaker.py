"""A circuit breaker (Nygard, "Release It!"): who does not answer is left alone for a moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum

from services.runtime.resilience.window import Clock, Window


@dataclass(frozen=True, slots=True)
class Tuning:
    """When a breaker opens, and for how long.

    The pauses are short for what is in the mesh: gRPC itself looks for a lost peer once a second,
    and longer ones would only delay recovery.

    Attributes:
        window: Seconds that are looked at.
        least: Calls in them before they say anything.
        share: How many of them must have failed.
        first_pause: Seconds for which it opens; they double while probes fail.
        longest_pause: What they double to.
        probe_seconds: A probe that hears nothing for so long does not keep others from trying.
        in_a_row: It opens too when so many failed one after the other; 0 is never.
    """

    window: float = 10.0
    least: int = 20
    share: float = 0.5
    first_pause: float = 0.25
    longest_pause: float = 1.0
    probe_seconds: float = 1.0
    in_a_row: int = 0


_USUAL = Tuning()


class State(IntEnum):
    """What a breaker does with a call."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens when many of the calls in the last seconds failed, and lets one through to see.

    Each call that may pass gets a ticket and gives it back with its outcome. A ticket of an
    earlier state counts for nothing: what began before the breaker opened does not close it.
    """

    def __init__(self, clock: Clock = time.monotonic, tuning: Tuning = _USUAL) -> None:
        self.opened = 0
        self._clock = clock
        self._tuning = tuning
        self._window = Window(tuning.window, clock=clock)
        self._state = State.CLOSED
        self._row = 0
        self._until = 0.0
        self._pause = tuning.first_pause
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
        self._probe_ends = self._clock() + self._tuning.probe_seconds
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
                self._open(min(self._pause * 2, self._tuning.longest_pause))
            elif ticket == self._probe:
                self._probe = None

    def _count(self, good: bool | None) -> None:
        if good is None:
            return
        self._window.add(good, not good)
        self._row = 0 if good else self._row + 1
        bad, calls = self._window.bad, self._window.good + self._window.bad
        many = calls >= self._tuning.least and bad >= calls * self._tuning.share
        if not good and (many or 0 < self._tuning.in_a_row <= self._row):
            self.opened += 1
            self._open(self._tuning.first_pause)

    def _open(self, pause: float) -> None:
        self._state = State.OPEN
        self._pause = pause
        self._until = self._clock() + pause
        self._turn()

    def _close(self) -> None:
        self._state = State.CLOSED
        self._row = 0
        self._window.clear()
        self._turn()

    def _turn(self) -> None:
        self._ticket += 1
        self._since = self._ticket
        self._probe = None
