"""A mesh under test: the product as it is, or with defects planted before it starts."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.runtime.settings import Settings
from tests.e2e.mesh import ROOT, Mesh
from tests.faults.rpcs import by_name, parse
from tests.faults.valid import valid
from tests.faults.wire import Answer, Mouth

PASSWORD = "a long password"
# One caller asks more here than a limit would let anybody: what is looked at are other refusals.
_UNLIMITED = {f"rate_{kind}": "100000" for kind in ("read", "write", "generate", "login")}
# The full forms take longer than a token is good for.
_LASTING = {"access_token_seconds": "86400"}


class FaultyMesh(Mesh):
    """`plexus up`, started by way of the module that plants defects."""

    def __init__(self, data_dir: Path, *defects: str, **settings: str) -> None:
        super().__init__(data_dir, **{**_UNLIMITED, **_LASTING, **settings})
        self._defects = defects

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start it and wait for nothing."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "tests.faults.planted", *self._defects),
            *("--", "up", "--shape", self._shape),
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    @property
    def settings(self) -> Settings:
        """Its settings, as far as they say where things are."""
        return Settings.model_validate({"data_dir": self.data_dir, "port": self.port})

    def mouth(self) -> Mouth:
        """A caller of it."""
        return Mouth(self.port, self.settings.socket)

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What is on the disk."""
        with contextlib.closing(sqlite3.connect(self.settings.database)) as connection:
            return connection.execute(query, values).fetchall()


@asynccontextmanager
async def up(folder: Path, *defects: str, **settings: str) -> AsyncIterator[FaultyMesh]:
    """A running mesh with these defects."""
    mesh = FaultyMesh(folder, *defects, **settings)
    await mesh.start()
    try:
        yield mesh
    finally:
        await mesh.kill()


async def register(mouth: Mouth, email: str, display_name: str = "Ada") -> tuple[Any, Any]:
    """A new account and its first tokens: the user, and the reply to its login."""
    made = await reply(
        mouth, "RegisterUser", email=email, password=PASSWORD, display_name=display_name
    )
    tokens = await reply(mouth, "AuthenticateUser", email=email, password=PASSWORD)
    return made.user, tokens


async def reply(mouth: Mouth, rpc: str, token: str = "", **values: Any) -> Any:
    """The reply to a call that must succeed, over gRPC through the gateway."""
    called = by_name(rpc)
    answer = await mouth.call("grpc", called, valid(called.request, values), bearer(token))
    assert answer.ok, f"{rpc}: {answer}"
    return parse(called.reply, answer.messages[0])


def bearer(token: str) -> list[tuple[str, str]]:
    """The header that a token goes into."""
    return [("authorization", f"Bearer {token}")] if token else []


def describe(answer: Answer) -> dict[str, Any]:
    """An answer for a history."""
    return {
        "code": answer.code,
        "reason": answer.reason,
        "message": answer.message[:300],
        "http": answer.http,
        "ms": round(answer.seconds * 1000, 1),
    }
