"""The `plexus` command against a running mesh, as a person or a script types it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import new_email
from tests.e2e.mesh import ROOT, Mesh
from tests.services.llm.scripted_openai import ScriptedOpenAi, good


class Shell:
    """Runs `plexus` as one user of this machine."""

    def __init__(self, home: Path, mesh: Mesh) -> None:
        kept = {key: value for key, value in os.environ.items() if "PLEXUS" not in key}
        self._environment = {**kept, "XDG_CONFIG_HOME": str(home), "PLEXUS_URL": mesh.url}

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", *arguments),
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, given: str = "") -> tuple[int | None, str, str]:
        process = await self.spawn(*arguments)
        output, errors = await asyncio.wait_for(process.communicate(given.encode()), 30)
        return process.returncode, output.decode(), errors.decode()


@pytest.fixture
async def shell(tmp_path: Path, mesh: Mesh) -> Shell:
    found = Shell(tmp_path, mesh)
    await register(found)
    return found


async def register(shell: Shell) -> None:
    status, _, errors = await shell.run(
        *("login", "--register", "--email", new_email()),
        *("--display-name", "Ada", "--password-stdin"),
        given="a long password\n",
    )
    assert status == 0, errors


async def test_a_question_is_answered_and_the_conversation_goes_on(shell: Shell) -> None:
    status, answer, errors = await shell.run("chat", "The train leaves at noon.", "--json")
    assert status == 0, errors
    first = json.loads(answer.splitlines()[0])
    session = first["run_started"]["session_id"]
    status, answer, errors = await shell.run(
        "chat", "--session", session, "When does the train leave?"
    )
    assert status == 0, errors
    assert "The train leaves at noon." in answer
    assert session in errors


async def test_any_rpc_can_be_called(shell: Shell) -> None:
    status, output, _ = await shell.run("call", "identity/GetProfile", "--json", "{}")
    assert (status, json.loads(output)["user"]["display_name"]) == (0, "Ada")
    status, output, errors = await shell.run(
        "call", "agents/GetRun", "--json", '{"run_id": "run_absent"}'
    )
    assert (status, output) == (1, "")
    assert "There is no such run." in errors
    status, output, _ = await shell.run("call", "agents/Process", "--json", '{"input": "Hello"}')
    events = [json.loads(line) for line in output.splitlines()]
    assert (status, "run_completed" in events[-1]) == (0, True)


async def test_the_state_of_every_module_is_a_table(shell: Shell) -> None:
    status, output, _ = await shell.run("status")
    assert status == 0
    for module in (
        "identity",
        "llm",
        "history",
        "memory",
        "ingest",
        "context",
        "agents",
        "interop",
        "monitor",
    ):
        assert module in output


async def test_nobody_is_told_to_log_in(tmp_path: Path, mesh: Mesh) -> None:
    status, _, errors = await Shell(tmp_path, mesh).run("chat", "Hello")
    assert status == 1
    assert "plexus login" in errors


async def test_a_chat_outlives_the_mesh_it_talks_to(tmp_path: Path) -> None:
    """Killed in the middle and started again: the text so far, once, and how the run ended."""
    words = [f"word{n} " for n in range(200)]
    async with ScriptedOpenAi() as model:
        model.script = good(words, pace=0.02)
        mesh = Mesh(tmp_path / "data", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        shell = Shell(tmp_path, mesh)
        await register(shell)
        chat = await shell.spawn("chat", "Go on.")
        assert chat.stdout is not None
        head = await asyncio.wait_for(chat.stdout.readexactly(30), 10)
        await mesh.kill()
        await mesh.start()
        output, errors = await asyncio.wait_for(chat.communicate(), 30)
        await mesh.kill()
    said = (head + output).decode().rstrip("\n")
    assert "".join(words).startswith(said.rstrip())
    assert len(said) >= 30
    assert chat.returncode == 1
    assert "INTERRUPTED" in errors.decode()


async def test_ctrl_c_cancels_the_answer(tmp_path: Path) -> None:
    async with ScriptedOpenAi() as model:
        model.script = good(["word "] * 1000, pace=0.02)
        mesh = Mesh(tmp_path / "data", llm_url=model.url, llm_model="scripted")
        await mesh.start()
        shell = Shell(tmp_path, mesh)
        await register(shell)
        chat = await shell.spawn("chat", "Go on.")
        assert chat.stdout is not None
        await asyncio.wait_for(chat.stdout.readexactly(10), 10)
        chat.send_signal(signal.SIGINT)
        await asyncio.wait_for(chat.communicate(), 10)
        async with asyncio.timeout(2):
            await model.last.gone.wait()
        await mesh.kill()
    assert chat.returncode == 130
