"""Calling any RPC by what the contracts say about it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli.catalogue import Catalogue
from services.cli.errors import Failure
from services.cli.messages import from_value, read_values
from services.cli.root import plexus
from tests.services.cli.conftest import Cli
from tests.services.cli.fake import MODULES, Fake


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.read()


async def test_a_reply_is_a_line_of_json_with_the_contracts_names(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("call", "agents/ListAgents", "--json", '{"page_size": 5, "pageToken": "x"}')
    assert done.status == 0, done.err
    assert done.lines[0]["agents"][0]["agent_id"] == "agt_1"
    assert done.lines[0]["next_page_token"] == ""
    assert (fake.requests[0].page_size, fake.requests[0].page_token) == (5, "x")


async def test_a_stream_is_a_line_for_each_message(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("call", "agents/WatchRun", "--json", "-", stdin='{"run_id": "run_1"}')
    assert done.status == 0, done.err
    assert [line["sequence"] for line in done.lines] == ["1", "2", "3", "4", "5"]
    assert done.lines[1]["text_delta"] == {"text": "Hel"}


async def test_a_request_may_come_from_a_file(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    (cli.home / "request.json").write_text('{"page_size": 7}')
    assert (await cli("call", "listagents", "--json", "@request.json")).status == 0
    assert fake.requests[0].page_size == 7
    done = await cli("call", "listagents", "--json", "@absent.json")
    assert (done.status, "absent.json cannot be read" in done.err) == (2, True)


async def test_a_public_rpc_is_sent_no_token(cli: Cli, fake: Fake) -> None:
    cli.environment["PLEXUS_TOKEN"] = "key"
    done = await cli("call", "identity/GetJwks")
    assert done.status == 0, done.err
    assert done.lines[0]["keys"][0]["kid"] == "kid_1"


async def test_an_error_gives_its_reason(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("call", "agents/GetRun", "--json", '{"run_id": "x"}')
    assert (done.status, done.out) == (1, "")
    assert done.err == "Error: There is no such run. (NOT_FOUND)\n  resource: run\n"


async def test_an_error_gives_fields_and_when_to_try_again(cli: Cli) -> None:
    request = '{"email": "x@example.com", "password": "short", "display_name": "x"}'
    done = await cli("call", "identity/RegisterUser", "--json", request)
    assert "(INVALID_REQUEST)\n  password: is too short\n" in done.err
    request = '{"email": "x@example.com", "password": "too often"}'
    done = await cli("call", "identity/AuthenticateUser", "--json", request)
    assert "(TOO_MANY_ATTEMPTS)\n  Try again in 30 s.\n" in done.err


async def test_a_call_that_takes_too_long_is_ended(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    done = await cli("call", "monitor/WatchHealth", "--timeout", "0.5")
    assert (done.status, len(done.lines)) == (1, len(MODULES))
    assert "did not end within 0.5 s" in done.err


async def test_ctrl_c_ends_a_stream(cli: Cli, fake: Fake) -> None:
    cli.log_in(fake)
    process = await cli.start("call", "monitor/WatchHealth")
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 10)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, b"Traceback" in err) == (130, False)


async def test_nobody_there_is_said(bare: Cli, fake: Fake) -> None:
    bare.environment["PLEXUS_TOKEN"] = "key"
    done = await bare("call", "agents/ListAgents")
    assert done.status == 1
    assert "does not answer at http://127.0.0.1:1. Start it with `plexus up`" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["agents/GetRnu"], "There is no RPC agents/GetRnu. Did you mean agents/GetRun"),
        (["zzz"], "See all of them with `plexus call --list`."),
        ([], "Name an RPC"),
        (["GetRun", "--json", "{"], "This is not JSON"),
        (["GetRun", "--json", "{} {}"], "takes one message, not 2"),
        (["GetRun", "--json", '{"runid": 1, "z": 2}'], "(did you mean `run_id`?), `z`."),
        (["GetRun", "--json", '{"run_id": 1}'], "See what it takes with --describe."),
        (["GetRun", "--json", "[]"], "See what it takes with --describe."),
        (["GetRun", "--url", "ftp://x"], "is no address of an installation"),
        (["GetRun", "--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_usage_is_told_apart(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(plexus, ["call", *arguments])
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


def test_an_internal_rpc_is_not_called() -> None:
    done = CliRunner().invoke(plexus, ["call", "history/GetWindow"])
    assert (done.exit_code, "for services of the mesh alone" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "name",
    [
        "agents/GetRun",
        "AgentsService/GetRun",
        "plexus.agents.v1.AgentsService/GetRun",
        "/plexus.agents.v1.AgentsService/GetRun",
        "plexus.agents.v1.AgentsService.GetRun",
        "AGENTS/getrun",
        "GetRun",
    ],
)
def test_an_rpc_goes_by_many_names(catalogue: Catalogue, name: str) -> None:
    assert catalogue.find(name).path == "/plexus.agents.v1.AgentsService/GetRun"


def test_every_name_in_the_list_is_found(catalogue: Catalogue) -> None:
    assert {catalogue.find(rpc.name) for rpc in catalogue.rpcs} == set(catalogue.rpcs)
    assert catalogue.modules == sorted(MODULES)


def test_the_list_says_who_may_call() -> None:
    done = CliRunner().invoke(plexus, ["call", "--list"])
    line = next(line for line in done.stdout.splitlines() if line.startswith("agents/GetRun "))
    assert line.split(maxsplit=5) == [
        *("agents/GetRun", "GET", "/v1/runs/{run_id}", "runs.read", "viewer", "One run")
    ]
    assert "identity/WatchRevocations " in done.stdout
    assert "\x1b" not in done.stdout


def test_describe_gives_fields_with_comments_and_bounds() -> None:
    done = CliRunner().invoke(plexus, ["call", "llm/Generate", "--describe"])
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "Deadline 600 s" in lines
    assert "Access models.generate (member and above)" in lines
    assert "Returns a stream of GenerateResponse" in lines
    assert "Example plexus call llm/Generate --json '{\"messages\": [{}]}'" in lines
    assert any(
        line.startswith("messages ModelMessage[] required; 1 to 2,000 items") for line in lines
    )
    role = next(line for line in lines if line.startswith("messages[].role MessageRole"))
    assert "MESSAGE_ROLE_USER" in role
    assert "UNSPECIFIED" not in role
    assert any(line.startswith("temperature float 0 to 2 How freely") for line in lines)


def test_unknown_fields_are_found_at_any_depth(catalogue: Catalogue) -> None:
    kind = catalogue.contracts.message_class("plexus.llm.v1.GenerateRequest")
    value = {"messages": [{"role": "MESSAGE_ROLE_USER", "txt": "x"}], "modle": "y"}
    with pytest.raises(Failure) as told:
        from_value(value, kind, catalogue.contracts.pool)
    assert "`messages[0].txt` (did you mean `text`?)" in told.value.message
    assert "`modle` (did you mean `model`?)" in told.value.message


def test_a_time_is_no_unknown_field(catalogue: Catalogue) -> None:
    kind = catalogue.contracts.message_class("plexus.identity.v1.CreateApiKeyRequest")
    value = {"displayName": "x", "expire_time": "2030-01-01T00:00:00Z", "roles": ["ROLE_VIEWER"]}
    made = from_value(value, kind, catalogue.contracts.pool)
    assert made.expire_time.seconds == 1_893_456_000  # type: ignore[attr-defined]


def test_values_stand_one_after_the_other() -> None:
    assert read_values(' {"a": 1}\n\n{"a": 2} ') == [{"a": 1}, {"a": 2}]
    assert read_values("") == []


def test_a_missing_descriptor_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="make generate"):
        Catalogue.read(tmp_path / "plexus.binpb")
