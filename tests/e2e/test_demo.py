"""The first thing that somebody new does: documents in, a question, an answer with its sources."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.mesh import Mesh
from tests.e2e.test_command_line import Shell, register


async def test_the_projects_own_documents_answer(tmp_path: Path, mesh: Mesh) -> None:
    shell = Shell(tmp_path, mesh)
    await register(shell)
    for _ in range(2):
        status, output, errors = await shell.run("demo")
        assert status == 0, errors
        assert "The run itself does not depend on the connection." in output
        assert "Source: Plexus, A first answer: “The run itself" in errors
        assert "ready" in output
    # Brought again, nothing is there twice.
    documents = await shell.run("call", "ingest/ListDocuments", "--json", "{}")
    assert documents[1].count('"uri": "plexus:README.md"') == 1


async def test_documents_of_ones_own_answer(tmp_path: Path, mesh: Mesh) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "boiler.md").write_text("# Boiler\n\nThe boiler was serviced in March.\n")
    shell = Shell(tmp_path, mesh)
    await register(shell)
    status, output, errors = await shell.run(
        *(
            "demo",
            "--folder",
            str(tmp_path / "notes"),
            "--question",
            "When was the boiler serviced?",
        )
    )
    assert status == 0, errors
    assert "The boiler was serviced in March." in output
    assert "Source: Boiler" in errors
    status, _, errors = await shell.run("demo", "--folder", str(tmp_path))
    assert status == 1
    assert "--folder" in errors


async def test_the_index_is_made_anew_while_it_serves(tmp_path: Path, mesh: Mesh) -> None:
    shell = Shell(tmp_path, mesh)
    await register(shell)
    stored = await shell.run(
        *("call", "memory/StoreMemories"),
        *("--json", '{"records": [{"text": "The boiler was serviced in March."}]}'),
    )
    assert stored[0] == 0, stored
    status, _, errors = await shell.run("index", "rebuild")
    assert status == 0, errors
    assert "made anew: 1 entries" in errors
    status, output, errors = await shell.run("index", "status")
    assert status == 0, errors
    assert "entries           1" in output
    assert "being made anew" not in output
    status, output, errors = await shell.run("chat", "When was the boiler serviced?")
    assert "The boiler was serviced in March." in output
    assert "Source: a memory in user/" in errors
