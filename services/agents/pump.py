"""Between a model that writes and a log that commits: what waits is committed together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

# How far a model may be ahead of the log, in characters; past it the model is made to wait.
_MAX_WAITING = 65_536


class TextPump:
    """Commits text as it comes: at once when the log is free, joined when it is busy."""

    def __init__(self, commit: Callable[[str], Awaitable[None]]) -> None:
        self._commit = commit
        self._pieces: list[str] = []
        self._waiting = 0
        self._changed = asyncio.Condition()
        self._closed = False
        self._error: Exception | None = None
        self._running = asyncio.create_task(self._run())

    async def put(self, text: str) -> None:
        """Add text; returns when more may follow.

        Raises:
            PlexusError: The log does not take it.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting < _MAX_WAITING or self._error)
            if self._error is not None:
                raise self._error
            self._pieces.append(text)
            self._waiting += len(text)
            self._changed.notify_all()

    async def close(self) -> None:
        """Return when everything is committed, even to a caller who is cancelled meanwhile.

        Raises:
            PlexusError: The log does not take it.
        """
        closing = asyncio.ensure_future(self._finish())
        try:
            await asyncio.wait({closing})
        except asyncio.CancelledError:
            # What the model wrote is kept all the same, before whoever cancels reads it.
            await asyncio.wait({closing})
            raise
        if self._error is not None:
            raise self._error

    async def _finish(self) -> None:
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        await self._running

    async def _run(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._pieces or self._closed)
                text = "".join(self._pieces)
                self._pieces.clear()
                self._waiting = 0
                self._changed.notify_all()
            if not text:
                return
            try:
                await self._commit(text)
            except Exception as error:  # noqa: BLE001 - raised where text is put
                async with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
