"""Parsers: processes that read documents, a bounded number at one time.

A parser is kept for the next small document, since starting one takes longer than reading such a
document does; after some, after a large one, and after any failure it is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.ingest.domain.chunks import clean
from services.ingest.domain.documents import Reason, Unreadable
from services.ingest.domain.passages import Kind, Passage
from services.ingest.parsing.records import MAX_LINE
from services.ingest.settings import IngestSettings
from services.runtime import log

_logger = log.get(__name__)
_ROOT = Path(__file__).parents[3]
_SMALL = 262_144
_SERVES = 50
_FREE_CPU_SECONDS = 2
_BYTES_A_CPU_SECOND = 50_000
_FILE_BYTES = 67_108_864
_IDLE_SECONDS = 60.0
_TOO_LARGE = "Reading it takes more time or memory than a document may."
_KILLED = {-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGXFSZ}


@dataclass(frozen=True, slots=True)
class Task:
    """A file to read, in a folder that the parser may write to."""

    path: Path
    size: int
    file_name: str
    media_type: str
    depth: int


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that was attached to it."""

    path: Path
    file_name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How much is read, 0 to 100."""

    percent: int


@dataclass(frozen=True, slots=True)
class Done:
    """It is read."""

    title: str
    media_type: str
    page_count: int


Found = list[Passage] | Attached | Progress | Done
Take = Callable[[Found], Awaitable[None]]


class _Parser:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.served = 0
        self.since = asyncio.get_running_loop().time()

    @classmethod
    async def start(cls, memory: int, folder: Path) -> _Parser:
        """Start one; it has none of our environment."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.ingest.parsing"),
                *(str(os.getpid()), str(memory), str(_FILE_BYTES)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": str(_ROOT),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "LANG": "C.UTF-8",
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                },
                cwd=folder,
                start_new_session=True,
                limit=MAX_LINE,
            )
        )

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    async def read(self, task: Task, cpu_seconds: int, take: Take) -> None:
        """Have it read a file.

        Raises:
            Unreadable: It cannot be read.
        """
        self.served += 1
        job = {
            "path": str(task.path),
            "folder": str(task.path.parent),
            "file_name": task.file_name,
            "media_type": task.media_type,
            "depth": task.depth,
            "cpu_seconds": cpu_seconds,
        }
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(ConnectionError):  # its end is heard below
            stdin.write(json.dumps(job).encode() + b"\n")
            await stdin.drain()
        while True:
            try:
                line = await stdout.readline()
                found = _found(json.loads(line)) if line else None
            except (ValueError, KeyError, TypeError) as error:
                # It says what no parser of ours does: the file has made it something else.
                raise Unreadable(Reason.BROKEN, "The file is broken.") from error
            if found is None:
                raise await self._end()
            await take(found)
            if isinstance(found, Done):
                return

    async def _end(self) -> Unreadable:
        code = await self._process.wait()
        _logger.info("parser_ended", code=code)
        if code in _KILLED:
            return Unreadable(Reason.TOO_LARGE, _TOO_LARGE)
        return Unreadable(Reason.BROKEN, "The file is broken: reading it breaks off.")

    async def kill(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.shield(self._process.wait())


def _found(record: dict[str, Any]) -> Found:
    """A record that a parser sent.

    Raises:
        Unreadable: It says that the file cannot be read.
        ValueError: It is no record.
        KeyError: Neither is it.
        TypeError: Neither is it.
    """
    match record:
        case {"passages": passages}:
            return [
                Passage(str(text), Kind(kind), tuple(map(str, headings)), int(page), int(a), int(b))
                for text, kind, headings, page, a, b in passages
            ]
        case {"percent": percent}:
            return Progress(int(percent))
        case {"attached": attached}:
            # A mail may name them by what no database takes.
            name, said = clean(str(attached["file_name"])), clean(str(attached["media_type"]))
            return Attached(Path(attached["path"]), name, said)
        case {"done": done}:
            pages = int(done["page_count"])
            return Done(clean(str(done["title"])), str(done["media_type"])[:200], pages)
        case {"failed": failed}:
            raise Unreadable(Reason[failed["reason"]], str(failed["message"])[:1000])
    raise ValueError("that is no record")


class Parsers:
    """Those of this process."""

    def __init__(self, settings: IngestSettings, folder: Path) -> None:
        """Prepare; none is started yet.

        Args:
            settings: How many, and with which bounds.
            folder: Where they are at home.
        """
        self._settings = settings
        self._folder = folder
        self._free = asyncio.Semaphore(settings.ingest_parsers)
        self._idle: list[_Parser] = []

    async def read(self, task: Task, take: Take) -> None:
        """Read a file: passages in their order, what is attached, and last that it is done.

        Raises:
            Unreadable: It cannot be read; what was given until then is not all.
        """
        cpu_seconds = min(
            int(self._settings.ingest_parser_seconds),
            _FREE_CPU_SECONDS + task.size // _BYTES_A_CPU_SECOND,
        )
        async with self._free, self._one(small=task.size <= _SMALL) as parser:
            try:
                async with asyncio.timeout(self._settings.ingest_parser_seconds):
                    await parser.read(task, cpu_seconds, take)
            except TimeoutError:
                raise Unreadable(Reason.TOO_LARGE, _TOO_LARGE) from None

    @asynccontextmanager
    async def _one(self, *, small: bool) -> AsyncIterator[_Parser]:
        parser = None
        while self._idle and parser is None:
            parser = self._idle.pop()
            if parser.ended:
                parser = None
        if parser is None:
            parser = await _Parser.start(self._settings.ingest_parser_memory, self._folder)
        good = False
        try:
            yield parser
            good = True
        finally:
            if good and small and parser.served < _SERVES:
                parser.since = asyncio.get_running_loop().time()
                self._idle.append(parser)
            else:
                await parser.kill()

    async def keep_few(self) -> None:
        """End those that had nothing to do for a while, now and then."""
        while True:
            await asyncio.sleep(_IDLE_SECONDS / 4)
            old = asyncio.get_running_loop().time() - _IDLE_SECONDS
            for parser in [each for each in self._idle if each.since < old]:
                self._idle.remove(parser)
                await parser.kill()

    async def close(self) -> None:
        """End all."""
        while self._idle:
            await self._idle.pop().kill()
