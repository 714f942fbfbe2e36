"""Who listens to what, in this process."""

from __future__ import annotations

import asyncio
import random

# A change that concerns every listener reaches them spread over this long: each will look at the
# database, and they should not all do so at once.
_SPREAD_SECONDS = 0.2


class Listener:
    """One subscription; see `api.Subscription`."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()
        self._payload = b""

    def tell(self, payload: bytes) -> None:
        """Let it know; what it has not looked at yet is replaced."""
        self._payload = payload
        self._heard.set()

    def nudge(self) -> None:
        """Let it look, unless it has a reason to already."""
        if not self._heard.is_set():
            self.tell(b"")

    async def wait(self, seconds: float) -> bytes | None:
        """See `api.Subscription`."""
        if not self._heard.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._heard.wait()
            except TimeoutError:
                return None
        self._heard.clear()
        payload, self._payload = self._payload, b""
        return payload


class Topics:
    """The listeners of each topic that has any."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    @property
    def names(self) -> set[str]:
        """The topics that somebody listens to."""
        return set(self._listeners)

    def add(self, topic: str) -> Listener:
        """A new listener."""
        listener = Listener()
        self._listeners.setdefault(topic, set()).add(listener)
        return listener

    def remove(self, topic: str, listener: Listener) -> bool:
        """Forget a listener; True where it was its topic's last."""
        others = self._listeners[topic]
        others.remove(listener)
        if others:
            return False
        del self._listeners[topic]
        return True

    def tell(self, topic: str, payload: bytes) -> None:
        """Tell everyone who listens to a topic."""
        for listener in self._listeners.get(topic, ()):
            listener.tell(payload)

    def nudge_all(self) -> None:
        """Let every listener look at the database, soon."""
        loop = asyncio.get_running_loop()
        for listeners in self._listeners.values():
            for listener in listeners:
                loop.call_later(random.uniform(0, _SPREAD_SECONDS), listener.nudge)  # noqa: S311
