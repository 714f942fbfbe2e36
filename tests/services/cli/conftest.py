"""The command as a process of its own, and the scripted installation that it speaks to."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.cli.address import Address
from services.cli.settings import CliSettings
from tests.services.cli.fake import EMAIL, Fake


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """What it printed as JSON, a line each."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Cli:
    """Runs `plexus` with an environment that holds nothing of the machine's."""

    home: Path
    url: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> CliSettings:
        """What the command takes from that environment."""
        return CliSettings(url=self.url, token="", config_dir=self.home / "config" / "plexus")

    @property
    def address(self) -> Address:
        return Address.parse(self.url)

    @property
    def credentials(self) -> Path:
        return self.home / "config" / "plexus" / "credentials.json"

    def log_in(self, fake: Fake, **changes: Any) -> None:
        """Be logged in, without a command."""
        reply = fake._tokens()
        login = {
            "email": EMAIL,
            "access_token": reply["access_token"],
            "refresh_token": reply["refresh_token"],
            "renew_time": 4e9,
        }
        self.credentials.parent.mkdir(parents=True, exist_ok=True)
        self.credentials.write_text(json.dumps({self.url: {**login, **changes}}))

    def login(self) -> dict[str, Any]:
        """The login that is kept."""
        entry: dict[str, Any] = json.loads(self.credentials.read_text())[self.url]
        return entry

    async def start(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        """Start it and leave it running."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "PLEXUS_URL": self.url,
            **self.environment,
        }
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", *arguments),
            **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **streams},
            env=environment,
            cwd=self.home,
        )

    async def __call__(self, *arguments: str, stdin: str = "") -> Done:
        process = await self.start(*arguments)
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[Fake]:
    installation = Fake()  # type: ignore[abstract]  # what no test calls is left out
    await installation.start()
    yield installation
    await installation.stop()


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """The command where no installation is."""
    return Cli(tmp_path, url="http://127.0.0.1:1")


@pytest.fixture
def cli(tmp_path: Path, fake: Fake) -> Cli:
    """The command beside the scripted installation."""
    return Cli(tmp_path, url=fake.url)
