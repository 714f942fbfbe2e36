"""How much of each answer was passed on, noted where it survives this process.

A kill leaves no time to write the ledger. So each process has a file that is mapped into memory:
storing a number in it costs no more than storing it anywhere, and the kernel keeps what was stored
whatever becomes of the process. Whoever enters its calls into the ledger afterwards reads there how
far they had come. The file is locked as long as its process lives.

It outlives a process and not a machine: calls of a machine that is gone are entered without what
their answers took.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.runtime import log

_logger = log.get(__name__)
_SUFFIX = ".calls"
# A call's id, and the bytes of its answer that were passed on.
_SLOT = struct.Struct("<40sQ")
_SIZE = struct.Struct("<Q")
_SIZE_AT = 40
_GROWTH = 1024


class Journal:
    """The file of this process."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make it.

        Args:
            folder: Where those of all processes of this machine are.
            name: This process's, as the ledger has it.

        Raises:
            OSError: It cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / (_file_name(name) + _SUFFIX)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._slots = 0
        self._free: list[int] = []
        self._map: mmap.mmap | None = None
        self._grow()

    def _grow(self) -> None:
        more = self._slots + _GROWTH
        os.ftruncate(self._file, more * _SLOT.size)
        if self._map is not None:
            self._map.close()
        self._map = mmap.mmap(self._file, more * _SLOT.size)
        self._free.extend(range(more - 1, self._slots - 1, -1))
        self._slots = more

    def begin(self, call_id: str) -> int:
        """Note that a call begins; gives its slot, which is for `note` and `end`."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        assert self._map is not None
        _SLOT.pack_into(self._map, slot * _SLOT.size, call_id.encode(), 0)
        return slot

    def note(self, slot: int, size: int) -> None:
        """Note how many bytes of a call's answer are about to be passed on."""
        assert self._map is not None
        _SIZE.pack_into(self._map, slot * _SLOT.size + _SIZE_AT, size)

    def end(self, slot: int) -> None:
        """Forget a call, which is in the ledger by now."""
        assert self._map is not None
        _SLOT.pack_into(self._map, slot * _SLOT.size, b"", 0)
        self._free.append(slot)

    def close(self) -> None:
        """Leave the file to whoever finishes what is in it, or remove it where nothing is."""
        assert self._map is not None
        empty = len(self._free) == self._slots
        self._map.close()
        if empty:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


@contextmanager
def left_behind(folder: Path, name: str) -> Iterator[dict[str, int] | None]:
    """The bytes passed on for each call of a process that ended, by the call's id.

    Its file is removed when the block ends well. Empty where there is none on this machine; None
    where the process lives after all.
    """
    path = folder / (_file_name(name) + _SUFFIX)
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield {}
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("process_lives_without_lease", process=name)
            yield None
            return
        found = {}
        with os.fdopen(os.dup(file), "rb") as reader:
            while len(record := reader.read(_SLOT.size)) == _SLOT.size:
                call_id, size = _SLOT.unpack(record)
                if call_id.strip(b"\0"):
                    found[call_id.strip(b"\0").decode()] = size
        yield found
        path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _file_name(name: str) -> str:
    return name.replace("/", "-").strip("-") or "process"
