"""Small disks that can be filled, and what an installation does while one of them is full."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.identity.v1 import identity_service_pb2 as identity

from services.runtime.errors import PlexusError
from tests.e2e.callers import Grpc
from tests.e2e.conftest import PASSWORD, sign_up
from tests.e2e.mesh import Mesh
from tests.faults.suite import Suite

_IDENTITY = "identity.v1.IdentityService"
_AGENTS = "agents.v1.AgentsService"
# What is left of a file's own room takes some writes before the first is refused.
MOST_WRITES = 3000
# A run that was accepted with the last of the room waits until there is room for its events; nobody
# waits longer for it here.
WAITS = "waits"
_RUN_SECONDS = 5.0
_FILLER = "filler"


class Disk:
    """A file system of its own, of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / _FILLER

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                # A short write is the last that fits; the next one fails.
                file.write(bytes(64 * 1024))

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()


@contextmanager
def disk(folder: Path, megabytes: int, owner: str = "uid=0,gid=0") -> Iterator[Disk]:
    """A small disk at a folder; the test is skipped where nobody may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = f"size={megabytes}m,mode=700,{owner}"
    if mount is None or umount is None:
        pytest.skip("there is no mount here")
    if subprocess.call([mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]):
        pytest.skip("no file system can be mounted here")
    try:
        yield Disk(folder)
    finally:
        subprocess.call([umount, "--lazy", str(folder)])


@dataclass
class Full:
    """What happened while a disk was full.

    Attributes:
        reads: The reasons of reads that failed.
        writes: What each kind of write ended in, at last; empty is a success.
        acknowledged: The names that the user was told to have, the last one last.
        healed: Seconds from when there was room until every kind of write succeeded.
        lost: What was acknowledged and is not there.
    """

    reads: list[str] = field(default_factory=list)
    writes: dict[str, str] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    healed: float = float("inf")
    lost: list[str] = field(default_factory=list)


class Life:
    """One user of an installation, before, while and after there is no room."""

    def __init__(self, suite: Suite, caller: Grpc) -> None:
        self.made = Full()
        self._suite = suite
        self._caller = caller
        self._email = ""
        self._run = ""
        self._names = 0
        self._keys: list[str] = []

    async def begin(self) -> None:
        """Have something to look at, and to delete."""
        self._email = (await sign_up(self._caller)).user.email
        for _ in range(3):
            await self._make_key()
        await self._ask()

    async def suffer(self, full: Disk, rounds: int = 1, most: int = MOST_WRITES) -> None:
        """Try everything while the disk is full, each kind of write until it is refused."""
        for _ in range(rounds):
            for name, write in self._writes().items():
                # A store that tidies up makes room.
                full.fill()
                self.made.writes[name] = await self._until_refused(name, write, most)
            await self._look()

    async def heal(self, seconds: float) -> None:
        """Wait until every kind of write succeeds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for name, write in self._writes().items():
            while reason := await self._reason(write):
                if loop.time() - began > seconds:
                    self._suite.note("not healed", write=name, reason=reason)
                    return
                await asyncio.sleep(0.1)
        self.made.healed = loop.time() - began

    async def look_back(self) -> None:
        """Whether everything that was acknowledged is there."""
        await self._login()
        profile = await self._profile()
        if profile != self.made.acknowledged[-1]:
            self.made.lost.append(f"{profile} instead of {self.made.acknowledged[-1]}")
        reply = await self._caller.unary(
            f"{_IDENTITY}/ListApiKeys",
            identity.ListApiKeysRequest(page_size=100),
            identity.ListApiKeysResponse,
        )
        there = {each.api_key_id for each in reply.api_keys}
        self.made.lost += [each for each in self._keys if each not in there]
        await self._watch()

    def _writes(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "update": self._rename,
            "insert": self._make_key,
            "delete": self._delete_key,
            "login": self._login,
            "run": self._ask,
        }

    async def _until_refused(
        self, name: str, write: Callable[[], Awaitable[None]], most: int
    ) -> str:
        # There are three keys to delete, and no more: one try is all there is of that.
        for _ in range(1 if name in ("delete", "insert") else most):
            if reason := await self._reason(write):
                return reason
        return ""

    async def _reason(self, call: Callable[[], Awaitable[None]]) -> str:
        began = asyncio.get_running_loop().time()
        try:
            await call()
        except PlexusError as error:
            seconds = asyncio.get_running_loop().time() - began
            what = f"{error.code.name} {error.metadata.get('limit', '')}".strip()
            self._suite.note(call.__name__, reason=what, seconds=seconds, message=error.message)
            return what
        except TimeoutError:
            self._suite.note(call.__name__, reason=WAITS)
            return WAITS
        return ""

    async def _look(self) -> None:
        for read in (self._profile, self._list, self._watch, self._get_run):
            if reason := await self._reason(read):  # type: ignore[arg-type]
                self.made.reads.append(f"{read.__name__}: {reason}")

    async def _rename(self) -> None:
        self._names += 1
        name = f"Ada {self._names}"
        request = identity.UpdateProfileRequest(display_name=name)
        await self._caller.unary(
            f"{_IDENTITY}/UpdateProfile", request, identity.UpdateProfileResponse
        )
        self.made.acknowledged.append(name)

    async def _make_key(self) -> None:
        reply = await self._caller.unary(
            f"{_IDENTITY}/CreateApiKey",
            identity.CreateApiKeyRequest(display_name="a key"),
            identity.CreateApiKeyResponse,
        )
        self._keys.append(reply.api_key.api_key_id)

    async def _delete_key(self) -> None:
        request = identity.DeleteApiKeyRequest(api_key_id=self._keys[0])
        await self._caller.unary(
            f"{_IDENTITY}/DeleteApiKey", request, identity.DeleteApiKeyResponse
        )
        del self._keys[0]

    async def _login(self) -> None:
        reply = await self._caller.unary(
            f"{_IDENTITY}/AuthenticateUser",
            identity.AuthenticateUserRequest(email=self._email, password=PASSWORD),
            identity.AuthenticateUserResponse,
        )
        self._caller.token = reply.access_token

    async def _ask(self) -> None:
        last = None
        asked = agents.ProcessRequest(input="Hello")
        async with asyncio.timeout(_RUN_SECONDS):
            async for event in self._caller.stream(f"{_AGENTS}/Process", asked, run_pb2.RunEvent):
                last = event
        assert last is not None
        if last.HasField("run_completed"):
            self._run = last.run_id

    async def _profile(self) -> str:
        reply = await self._caller.unary(
            f"{_IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
        )
        return reply.user.display_name

    async def _list(self) -> None:
        await self._caller.unary(
            f"{_AGENTS}/ListAgents", agents.ListAgentsRequest(), agents.ListAgentsResponse
        )

    async def _get_run(self) -> None:
        request = agents.GetRunRequest(run_id=self._run)
        await self._caller.unary(f"{_AGENTS}/GetRun", request, agents.GetRunResponse)

    async def _watch(self) -> None:
        request = agents.WatchRunRequest(run_id=self._run)
        events = [
            event
            async for event in self._caller.stream(f"{_AGENTS}/WatchRun", request, run_pb2.RunEvent)
        ]
        if not events or not events[-1].HasField("run_completed"):
            self.made.lost.append(self._run)


@asynccontextmanager
async def living(suite: Suite, mesh: Mesh) -> AsyncIterator[Life]:
    """A user of a mesh that runs."""
    caller = Grpc(mesh.url)
    try:
        life = Life(suite, caller)
        await life.begin()
        yield life
    finally:
        await caller.close()
