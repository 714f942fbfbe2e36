"""The logins of this user, in one file that nobody else can read.

The file holds an entry for each installation, by its URL. It is replaced as a whole and never
written in place, so a reader sees the old one or the new one. Whoever changes it holds the lock
beside it: refresh tokens are single use, and two commands that spend one both lose the login.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.cli.errors import Failure

_LOCK_POLL_SECONDS = 0.02
_LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Login:
    """One login at one installation.

    Attributes:
        email: Whose.
        access_token: Goes into a call's `authorization`.
        refresh_token: For RefreshToken, once.
        renew_time: From when the access token is renewed before it is used: some time before it
            expires, in seconds since 1970.
    """

    email: str
    access_token: str
    refresh_token: str
    renew_time: float

    @property
    def fresh(self) -> bool:
        """Whether the access token can be used for a while yet."""
        return time.time() < self.renew_time


class CredentialsFile:
    """The file and its lock."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "credentials.json"

    def get(self, url: str) -> Login | None:
        """The login at an installation, if there is one.

        Raises:
            Failure: The file cannot be read.
        """
        entry = self._read().get(url)
        if entry is None:
            return None
        try:
            return Login(**entry)
        except TypeError:
            raise self._damaged() from None

    def put(self, url: str, login: Login) -> None:
        """Keep a login. Hold the lock."""
        self._write({**self._read(), url: asdict(login)})

    def remove(self, url: str) -> bool:
        """Forget a login; returns whether there was one. Hold the lock."""
        entries = dict(self._read())
        found = entries.pop(url, None) is not None
        if found:
            self._write(entries)
        return found

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep every other command from changing the file while the block runs.

        Raises:
            Failure: Another command holds the lock for too long, or it cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            await self._acquire(handle)
            yield
        finally:
            os.close(handle)  # and with it the lock

    async def _acquire(self, handle: int) -> None:
        # Polled: a thread that waits for a lock could not be cancelled by Ctrl-C.
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failure(
                        f"Another plexus command holds {self.path.with_suffix('.lock')} for too "
                        "long. End it and try again."
                    ) from None
                await asyncio.sleep(_LOCK_POLL_SECONDS)

    def _read(self) -> Mapping[str, Any]:
        try:
            entries = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(error) from None
        except ValueError:
            raise self._damaged() from None
        if not isinstance(entries, dict):
            raise self._damaged()
        return entries

    def _write(self, entries: Mapping[str, Any]) -> None:
        fresh = self.path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(entries, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> Failure:
        return Failure(
            f"Logins cannot be kept in {self.path.parent}: {error.strerror}. Mend that, or set "
            "PLEXUS_TOKEN instead of logging in."
        )

    def _damaged(self) -> Failure:
        return Failure(f"{self.path} is damaged. Delete it and log in again with `plexus login`.")
