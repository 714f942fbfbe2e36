"""The comparison with the last release, run as it is run: in a repository with a tag."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from proto.tools import breaking
from proto.tools.generate import ROOT
from tests.contract.conftest import Edit, copy_contracts, edit

AGENT = "agents/v1/agent.proto"
SERVICE = "agents/v1/agents_service.proto"
LAST_FIELD = "  google.protobuf.Timestamp create_time = 6;\n"
CANCEL = """      post: "/v1/runs/{run_id}:cancel"
      body: "*"
"""
A_NEW_RPC = """
  // Forgets an agent.
  rpc ForgetAgent(ForgetAgentRequest) returns (ForgetAgentResponse) {
    option (plexus.options.v1.policy) = {
      internal: true
      deadline: {seconds: 5}
    };
  }
"""
ITS_MESSAGES = """
// See ForgetAgent.
message ForgetAgentRequest {}

// See ForgetAgent.
message ForgetAgentResponse {}

// See GetAgent.
message GetAgentRequest {"""


def git(root: Path, *arguments: str) -> None:
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", root, *name, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose last release, two commits ago, has today's contracts."""
    root = tmp_path_factory.mktemp("released")
    copy_contracts(root)
    shutil.copy(ROOT / "buf.yaml", root)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "a release")
    git(root, "tag", "v0.1.0")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "after it")
    # Neither a release nor in the way of one.
    git(root, "tag", "nightly")
    return root


@pytest.fixture
def repository(released: Path, tmp_path: Path) -> Path:
    """A copy of that repository for one test."""
    return Path(shutil.copytree(released, tmp_path / "repository"))


def compare(root: Path) -> int:
    return breaking.main(["--root", str(root)])


BREAKS: dict[str, tuple[list[Edit], str]] = {
    "a removed field": (
        [(AGENT, "  // What people call it.\n  string display_name = 2;\n", "")],
        'Previously present field "2" with name "display_name"',
    ),
    "a renumbered field": (
        [(AGENT, "string display_name = 2;", "string display_name = 20;")],
        'Previously present field "2" with name "display_name"',
    ),
    "a changed type": (
        [(AGENT, "bool default = 5;", "int64 default = 5;")],
        'changed type from "bool" to "int64"',
    ),
    "a lost path": (
        [(SERVICE, 'get: "/v1/runs/{run_id}"}', 'get: "/v2/runs/{run_id}"}')],
        "GET /v1/runs/{}: over REST it was plexus.agents.v1.AgentsService.GetRun\n",
    ),
    "another verb": (
        [(SERVICE, 'post: "/v1/agents/process"', 'put: "/v1/agents/process"')],
        "POST /v1/agents/process: over REST it was plexus.agents.v1.AgentsService.Process",
    ),
    "another body": (
        [(SERVICE, CANCEL, CANCEL.replace('body: "*"', 'body: "run_id"'))],
        "and now is plexus.agents.v1.AgentsService.CancelRun with the body 'run_id'",
    ),
}
PASSES: dict[str, list[Edit]] = {
    "no change": [],
    "an added path": [
        (
            SERVICE,
            'get: "/v1/runs/{run_id}"}',
            'get: "/v1/runs/{run_id}" additional_bindings {get: "/v2/runs/{run_id}"}}',
        )
    ],
    "an added field": [(AGENT, LAST_FIELD, f"{LAST_FIELD}  // New.\n  string motto = 7;\n")],
    "an added RPC": [
        (SERVICE, "service AgentsService {\n", f"service AgentsService {{{A_NEW_RPC}"),
        (SERVICE, "\n// See GetAgent.\nmessage GetAgentRequest {", ITS_MESSAGES),
    ],
}


@pytest.mark.parametrize("change", BREAKS)
def test_what_breaks_callers_is_refused(
    change: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, said = BREAKS[change]
    edit(repository / "proto", edits)
    assert compare(repository) == 1
    errors = capsys.readouterr().err
    assert "callers of v0.1.0 would break" in errors
    assert said in errors


@pytest.mark.parametrize("change", PASSES)
def test_what_breaks_nobody_passes(
    change: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(repository / "proto", PASSES[change])
    assert compare(repository) == 0
    assert capsys.readouterr().out == "nothing breaks callers of v0.1.0\n"


def test_before_the_first_release_there_is_nothing_to_break(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(repository, "tag", "--delete", "v0.1.0")
    assert compare(repository) == 0
    assert "no release yet" in capsys.readouterr().out


def test_a_contract_that_does_not_compile_is_not_compared(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(repository / "proto", [(AGENT, "bool default = 5;", "boolean default = 5;")])
    assert compare(repository) == 2
    assert "agent.proto" in capsys.readouterr().err


def test_a_clone_without_its_tags_is_not_compared(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(
        [
            "git",
            "clone",
            "--quiet",
            "--depth=1",
            "--no-tags",
            released.as_uri(),
            tmp_path / "clone",
        ],
        check=True,
        capture_output=True,
    )
    assert compare(tmp_path / "clone") == 2
    assert "shallow" in capsys.readouterr().err
    arguments = ["--root", str(tmp_path / "clone"), "--where-possible"]
    assert breaking.main(arguments) == 0
    assert "not compared" in capsys.readouterr().err
