"""The embedded index, in a process of its own that is started again when it ends or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.context.domain.conditions import Plain
from services.context.domain.entries import Found
from services.context.index import frames
from services.context.index.backend import Point
from services.context.index.child import IN_USE
from services.context.text.bm25 import Sparse
from services.runtime import log
from services.runtime.errors import Internal, Unavailable

_logger = log.get(__name__)
_ANSWER_SECONDS = 5.0
_HANGS_SECONDS = 10.0
_STOP_SECONDS = 5.0
_MOST_WAITING = 256
_IN_USE = (
    "Another process has the embedded index. Let one process alone serve context, or give "
    "PLEXUS_QDRANT_URL a server that several can share."
)


class EdgeIndex:
    """See Backend."""

    name = "edge"

    def __init__(
        self,
        folder: Path,
        answer_seconds: float = _ANSWER_SECONDS,
        hangs_seconds: float = _HANGS_SECONDS,
    ) -> None:
        """Prepare one.

        Args:
            folder: Where it is kept.
            answer_seconds: How long somebody waits for an operation.
            hangs_seconds: After how long without an answer the process is taken to hang.
        """
        self._folder = folder
        self._seconds = answer_seconds
        self._hangs = hangs_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._late = asyncio.Event()
        self._answered = 0.0
        self.why = "The index is starting."

    @property
    def pid(self) -> int | None:
        """The process, where it runs."""
        return self._process.pid if self._process is not None else None

    async def run(self) -> None:
        """Keep the process until it ends; to be called again and again."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.context.index.child", str(self._folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        self._process = process
        self._late.clear()
        try:
            reading = asyncio.create_task(self._read(process))
            watching = asyncio.create_task(self._late.wait())
            try:
                await asyncio.wait((reading, watching), return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                reading.cancel()
                await asyncio.gather(reading, watching, return_exceptions=True)
        finally:
            self._ready.clear()
            self._process = None
            hung = self._late.is_set()
            await _end(process, at_once=hung)
            ended = process.returncode
            self.why = _IN_USE if ended == IN_USE else "The index does not answer just now."
            for each in self._waiting.values():
                if not each.done():
                    each.set_exception(Unavailable(self.why, retry_after=1))
                    each.exception()  # whoever asked may wait no more, and that is no defect
            self._waiting.clear()
        raise Unavailable(f"The index's process {'hung' if hung else f'ended with {ended}'}.")

    async def wait_ready(self, seconds: float) -> bool:
        """Wait until it answers; False where it takes longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        return self._ready.is_set()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                header = await process.stdout.readexactly(frames.HEADER)
                body = await process.stdout.readexactly(frames.length(header))
            except asyncio.IncompleteReadError:
                return
            self._answered = asyncio.get_running_loop().time()
            message = frames.unpacked(body)
            if message["id"] == 0:
                self._ready.set()
                continue
            waiting = self._waiting.pop(message["id"], None)
            if waiting is None or waiting.done():
                continue
            if "error" in message:
                _logger.error("index_refused", error=message["error"])
                waiting.set_exception(Internal("The index could not do it."))
            else:
                waiting.set_result(message["result"])

    async def _ask(self, op: str, **arguments: Any) -> Any:
        process = self._process
        if process is None or not self._ready.is_set():
            raise Unavailable(self.why, retry_after=1)
        if len(self._waiting) >= _MOST_WAITING:
            raise Unavailable("Too much waits for the index.", retry_after=1)
        assert process.stdin is not None
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        waiting = self._waiting[number] = loop.create_future()
        self._watch_over(waiting)
        message = frames.packed({"id": number, "op": op, "arguments": arguments})
        try:
            async with asyncio.timeout(self._seconds):
                process.stdin.write(message)
                await process.stdin.drain()
                # Its answer may come after nobody waits any more; only its absence is a sign.
                return await asyncio.shield(waiting)
        except (TimeoutError, ConnectionError) as error:
            raise Unavailable("The index does not answer just now.", retry_after=1) from error

    def _watch_over(self, waiting: asyncio.Future[Any]) -> None:
        """Take the process to hang where it answers nobody while this waits for its turn."""
        loop = asyncio.get_running_loop()
        asked = loop.time()

        def look() -> None:
            quiet = loop.time() - max(asked, self._answered)
            if quiet >= self._hangs:
                self._late.set()
            else:
                timers.append(loop.call_later(self._hangs - quiet, look))

        timers = [loop.call_later(self._hangs, look)]
        waiting.add_done_callback(lambda _: timers[-1].cancel())

    async def shelves(self) -> tuple[str, Sequence[str]]:
        """See Backend."""
        found = await self._ask("shelves")
        return found["serving"], found["all"]

    async def create(self, shelf: str) -> None:
        """See Backend."""
        await self._ask("create", shelf=shelf)

    async def serve(self, shelf: str) -> None:
        """See Backend."""
        await self._ask("serve", shelf=shelf)

    async def drop(self, shelf: str) -> None:
        """See Backend."""
        await self._ask("drop", shelf=shelf)

    async def upsert(self, shelf: str, points: Sequence[Point]) -> None:
        """See Backend."""
        plain = [
            {
                "id": each.entry_id,
                "payload": each.payload,
                "words": each.words and asdict(each.words),
                "dense": {name: list(vector) for name, vector in each.dense.items()},
            }
            for each in points
        ]
        await self._ask("upsert", shelf=shelf, points=plain)

    async def delete(self, shelf: str, condition: Plain) -> None:
        """See Backend."""
        await self._ask("delete", shelf=shelf, condition=condition)

    async def search(
        self, shelf: str, using: str, vector: Sparse | Sequence[float], condition: Plain, limit: int
    ) -> Sequence[Found]:
        """See Backend."""
        found = await self._ask(
            "search",
            shelf=shelf,
            using=using,
            vector=asdict(vector) if isinstance(vector, Sparse) else list(vector),
            condition=condition,
            limit=limit,
        )
        return [Found(*each) for each in found]

    async def payloads(
        self, shelf: str, entry_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """See Backend."""
        found: Mapping[str, Mapping[str, Any]] = await self._ask(
            "payloads", shelf=shelf, entry_ids=list(entry_ids)
        )
        return found

    async def scroll(self, shelf: str, condition: Plain, limit: int) -> Sequence[Found]:
        """See Backend."""
        found = await self._ask("scroll", shelf=shelf, condition=condition, limit=limit)
        return [Found(*each) for each in found]

    async def count(self, shelf: str, condition: Plain) -> int:
        """See Backend."""
        return int(await self._ask("count", shelf=shelf, condition=condition))

    async def add_space(self, shelf: str, using: str, size: int) -> None:
        """See Backend."""
        await self._ask("add_space", shelf=shelf, using=using, size=size)

    async def set_vectors(
        self, shelf: str, using: str, vectors: Mapping[str, Sequence[float]]
    ) -> None:
        """See Backend."""
        plain = {key: list(vector) for key, vector in vectors.items()}
        await self._ask("set_vectors", shelf=shelf, using=using, vectors=plain)


async def _end(process: asyncio.subprocess.Process, *, at_once: bool) -> None:
    """End a process; where it still answers it may write down what it has."""
    assert process.stdin is not None
    if not at_once:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
