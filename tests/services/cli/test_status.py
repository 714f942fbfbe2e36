"""How the installation is, and what the command says of itself."""

from __future__ import annotations

import asyncio
import importlib
import os
import pty
import resource
import signal
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner
from plexus.monitor.v1 import monitor_service_pb2 as monitor

from services.cli.address import Address
from services.cli.errors import Failure
from services.cli.root import plexus
from tests.services.cli.conftest import Cli
from tests.services.cli.fake import MODULES, Fake


async def test_every_module_has_a_line(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("status")
    assert done.status == 0, done.err
    title, empty, head, *rows = done.out.splitlines()
    assert title == f"Plexus 0.1.0, asking {cli.url}"
    assert (empty, head.split()) == ("", ["PART", "STATUS"])
    assert [row.split() for row in rows] == [[each, "serving"] for each in ("gateway", *MODULES)]


async def test_a_module_that_does_not_serve_shows_in_the_exit_status(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.health["llm"] = monitor.MODULE_STATUS_UNREACHABLE
    fake.health["history"] = monitor.MODULE_STATUS_NOT_SERVING
    done = await cli("status")
    assert done.status == 1
    assert "llm       unreachable" in done.out
    assert "history   not serving" in done.out


async def test_a_module_that_does_without_something_serves(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.health["agents"] = monitor.MODULE_STATUS_DEGRADED
    fake.details["agents"] = "redis"
    done = await cli("status")
    assert (done.status, "agents    degraded (without redis)" in done.out) == (0, True), done.out


async def test_a_module_of_which_nothing_is_said_is_unknown(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    del fake.health["llm"]
    # A second word about another tells that the first words are over.
    fake.changes.put_nowait(monitor.WatchHealthResponse(module_name="agents"))
    done = await cli("status")
    assert (done.status, "llm       unknown" in done.out) == (1, True)


async def test_without_a_login_the_gateway_is_shown(cli: Cli) -> None:
    done = await cli("status")
    assert done.status == 0
    assert done.out.splitlines()[-1].split() == ["gateway", "serving"]
    assert "You are not logged in" in done.err


async def test_a_gateway_that_is_not_well_is_told(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    fake.unwell()
    done = await cli("status")
    assert (done.status, "gateway   not serving" in done.out) == (1, True)
    assert "llm       serving" in done.out
    assert "a module behind it does not serve" in done.err


async def test_nobody_there_is_told(bare: Cli) -> None:
    done = await bare("status")
    assert (done.status, "gateway  unreachable" in done.out) == (1, True)
    assert "Start it with `plexus up`" in done.err


async def test_another_server_is_told_apart(bare: Cli) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    bare.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    done = await bare("status")
    server.close()
    assert (done.status, "is not Plexus. Name another" in done.err) == (1, True)


async def test_changes_are_followed(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    process = await cli.start("status", "--watch")
    assert process.stdout is not None
    while b"monitor" not in await asyncio.wait_for(process.stdout.readline(), 10):
        pass
    gone = monitor.WatchHealthResponse(module_name="llm", status=monitor.MODULE_STATUS_UNREACHABLE)
    fake.changes.put_nowait(gone)
    fake.changes.put_nowait(gone)
    assert b"  llm  unreachable\n" in await asyncio.wait_for(process.stdout.readline(), 10)
    fake.drop()
    assert b"  gateway  unreachable\n" in await asyncio.wait_for(process.stdout.readline(), 10)
    back = {await asyncio.wait_for(process.stdout.readline(), 10) for _ in range(2)}
    assert {line.split(maxsplit=1)[1] for line in back} == {
        b"gateway  serving\n",
        b"llm  serving\n",
    }
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, b"Traceback" in err) == (130, False)


def test_help_is_there_at_once() -> None:
    heavy = ("grpc", "google.protobuf", "pydantic", "rich", "asyncio", "sqlalchemy")
    script = (
        "import sys; from services.cli.root import run; run(['--help']);"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == "[]\n"
    # Time of the processor, which other tests at work beside this one do not add to.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.25
    for name in ("up", "status", "login", "logout", "chat", "call", "doctor"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", ["up", "status", "login", "logout", "chat", "call", "doctor"])
def test_each_command_has_help_with_an_example(name: str) -> None:
    done = CliRunner().invoke(plexus, [name, "--help"])
    assert done.exit_code == 0
    assert f"\n    plexus {name}" in done.output.partition("Examples:")[2]


async def test_the_exit_status_of_wrong_usage(bare: Cli) -> None:
    for arguments in (["nothing"], ["status", "--nothing"], ["up", "--port", "0"]):
        done = await bare(*arguments)
        assert (done.status, "Error: " in done.err) == (2, True)
    done = await bare("--version")
    assert (done.status, done.out) == (0, "plexus 0.1.0\n")


async def test_a_setting_that_cannot_be_used_is_named(bare: Cli) -> None:
    bare.environment["PLEXUS_LOG_LEVEL"] = "loud"
    done = await bare("up")
    assert (done.status, "PLEXUS_LOG_LEVEL: " in done.err) == (1, True)


def test_up_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def main(settings: object, shape: str) -> int:
        seen.extend((settings, shape))
        return 3

    monkeypatch.setattr(importlib.import_module("services.up"), "main", main)
    arguments = [
        "up",
        "--port",
        "8090",
        "--host",
        "::1",
        "--data-dir",
        "somewhere",
        "--shape",
        "mesh",
    ]
    done = CliRunner().invoke(plexus, arguments, standalone_mode=False)
    assert done.return_value == 3
    settings = seen[0]
    assert (settings.port, settings.host) == (8090, "::1")
    assert str(settings.data_dir) == "somewhere"
    assert seen[1] == "mesh"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("HTTPS://Plexus.Example", "https://plexus.example:443"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_address_has_one_form(text: str, url: str) -> None:
    assert Address.parse(text).url == url


@pytest.mark.parametrize(
    "text", ["", "localhost:8080", "http://", "http://x:99999", "http://x/v1", "ftp://x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Failure) as told:
        Address.parse(text)
    assert told.value.exit_code == 2


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
async def test_a_terminal_has_colours_unless_unwanted(
    cli: Cli, no_color: str, coloured: bool
) -> None:
    cli.environment |= {"TERM": "xterm", "NO_COLOR": no_color}
    ours, theirs = pty.openpty()
    process = await cli.start("status", stdout=theirs)
    os.close(theirs)
    await asyncio.wait_for(process.communicate(), 10)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert b"serving" in shown
    assert (b"\x1b[" in shown) is coloured
