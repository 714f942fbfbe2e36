"""Folders of the machine, below those that the operator allowed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from services.ingest.domain.sources import Folder, pattern_of
from services.ingest.service.places.things import LookFailed, Seen, Thing
from services.runtime.errors import InvalidRequest

_MAX_FILES = 100_000
_MAX_DEPTH = 32
_PIECE = 1_048_576


class Folders:
    """The folders that sources may look at."""

    def __init__(self, allowed: str) -> None:
        """Read what is allowed: paths with colons between them."""
        self._allowed = [Path(each) for each in allowed.split(":") if each]

    def require_allowed(self, path: Path) -> Path:
        """A folder's real path.

        Raises:
            InvalidRequest: The operator did not allow it, or it is none.
        """
        try:
            real = path.resolve(strict=True)
            good = path.is_absolute() and any(
                real.is_relative_to(root.resolve(strict=True))
                for root in self._allowed
                if root.is_dir()
            )
        except (OSError, ValueError, RuntimeError):
            good = False
        # Whether it is there is not told to those who may not look.
        if not good or not real.is_dir():
            raise InvalidRequest.field(
                "source.folder.path",
                "must be a folder that the operator allowed with PLEXUS_INGEST_FOLDERS",
            )
        return real

    async def look(self, place: Folder) -> AsyncIterator[Seen]:
        """The files in a folder that match, in the order of their names.

        Raises:
            LookFailed: It is not allowed any more, or has too many files.
        """
        try:
            root = await asyncio.to_thread(self.require_allowed, Path(place.path))
        except InvalidRequest as error:
            raise LookFailed(error.message) from error
        matches = pattern_of(place.pattern).matches
        found = await asyncio.to_thread(
            lambda: sorted(each for each in _files(root) if matches(each[0]))
        )
        if len(found) > _MAX_FILES:
            raise LookFailed(f"There are more than {_MAX_FILES} files.")
        for name, mark in found:
            path = root / name
            yield Thing(
                key=name,
                mark=mark,
                uri=path.as_uri()[:2000],
                title="",
                file_name=path.name[:255],
                media_type="",
                pieces=lambda path=path: _pieces(root, path),  # type: ignore[misc]
            )


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """The files below a folder, each with a mark of its state; links are not followed."""
    count = 0
    level = [root]
    for _ in range(_MAX_DEPTH):
        deeper: list[Path] = []
        for folder in level:
            for entry in _entries(folder):
                if entry.is_dir(follow_symlinks=False):
                    deeper.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    count += 1
                    if count > _MAX_FILES:
                        raise LookFailed(f"There are more than {_MAX_FILES} files.")
                    told = entry.stat(follow_symlinks=False)
                    name = os.path.relpath(entry.path, root)
                    if name.isprintable():
                        yield name, f"{told.st_mtime_ns}:{told.st_size}"
        level = deeper


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []  # gone meanwhile, or not ours to read


async def _pieces(root: Path, path: Path) -> AsyncIterator[bytes]:
    """A file's bytes.

    Raises:
        LookFailed: It leads out of the folder, or cannot be read.
    """
    handle = await asyncio.to_thread(_opened, root, path)
    with os.fdopen(handle, "rb") as file:
        while data := await asyncio.to_thread(file.read, _PIECE):
            yield data


def _opened(root: Path, path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise LookFailed(f"{path.name} cannot be read: {error.strerror}.") from error
    # A folder on the way may have become a link since it was looked at.
    if Path(f"/proc/self/fd/{handle}").readlink().is_relative_to(root):
        return handle
    os.close(handle)
    raise LookFailed(f"{path.name} leads out of the folder.")
