"""What was once on the wire still means the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from proto.tools.descriptors import Contracts
from tests.contract import samples
from tests.contract.conftest import Spoil
from tests.contract.record import record

RECORDED = samples.load()
AGENT = "agents/v1/agent.proto"
NAME = "plexus.agents.v1.Agent"


def differences(contracts: Contracts, name: str) -> list[str]:
    """In what a message's recorded samples no longer mean what they meant."""
    found = []
    for number, sample in enumerate(RECORDED[name]):
        try:
            from_bytes, from_json = samples.decode(contracts, name, sample)
        except (KeyError, DecodeError, ParseError) as error:
            found.append(f"sample {number} of {name} cannot be read any more: {error}")
            continue
        if contracts.as_dict(from_bytes) != sample["json"]:
            found.append(f"the bytes of sample {number} of {name} mean something else now")
        if samples.encode(from_json) != sample["binary"]:
            found.append(f"the JSON of sample {number} of {name} means something else now")
    return found


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_sample_means_what_it_meant(name: str, contracts: Contracts) -> None:
    assert differences(contracts, name) == []


def test_every_message_and_field_has_a_sample(contracts: Contracts) -> None:
    missing = samples.missing(contracts, RECORDED)
    assert not missing, (
        "these messages have fields without a recorded sample: run "
        f"`python -m tests.contract.record` and keep what it adds: {', '.join(missing)}"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string display_name = 2;", "string display_name = 20;"),
        ("string display_name = 2;", "string title = 2;"),
        ("bool default = 5;", "string default = 5;"),
    ],
    ids=["renumbered", "renamed", "retyped"],
)
def test_a_field_that_changed_is_noticed(old: str, new: str, spoil: Spoil) -> None:
    changed = Contracts.read(spoil([(AGENT, old, new)]))
    assert differences(changed, NAME) != []


def test_recording_adds_what_is_missing_and_changes_nothing(spoil: Spoil, tmp_path: Path) -> None:
    golden = Path(shutil.copytree(samples.GOLDEN, tmp_path / "golden"))
    field = "  google.protobuf.Timestamp create_time = 6;\n"
    grown = Contracts.read(spoil([(AGENT, field, f"{field}  // New.\n  bytes portrait = 7;\n")]))
    assert differences(grown, NAME) == []

    # Every message that holds the grown one is whole as it is: only the grown one is recorded.
    assert record(grown, golden) == [NAME]
    before, after = RECORDED[NAME], samples.load(golden)[NAME]
    assert after[: len(before)] == before
    assert after[-1]["json"]["portrait"] == "AP8HAA=="
    assert record(grown, golden) == []


def test_every_member_of_a_oneof_is_recorded() -> None:
    members = {key for sample in RECORDED["plexus.agents.v1.RunEvent"] for key in sample["json"]}
    assert {"run_started", "text_delta", "run_completed", "run_failed", "run_cancelled"} <= members


def test_a_package_has_a_file_of_its_own(contracts: Contracts) -> None:
    for path in samples.GOLDEN.glob("*.json"):
        assert {contracts.package(name) for name in json.loads(path.read_text())} == {path.stem}
