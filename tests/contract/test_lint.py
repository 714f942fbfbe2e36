"""The contracts keep to buf's rules and to ours, and both sets of rules can say no."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proto.tools import policy
from proto.tools.descriptors import Contracts
from proto.tools.generate import ROOT, descriptor_set
from tests.contract.conftest import Spoil, copy_contracts

PLANTED = Path(__file__).parent / "planted" / "defects.proto"
# What is wrong in the planted contract, and nothing else in it is.
DEFECTS = {
    "HAS_ACCESS": ["Service.NoPolicy", "Service.NoAccess", "Service.FalseAccess"],
    "HAS_DEADLINE": ["Service.NoPolicy", "Service.NoAccess", "Service.ZeroDeadline"],
    "HAS_RATE_CLASS": ["Service.NoClass"],
    "PERMISSION_IS_NAMED": ["Service.BadName"],
    "PERMISSION_HAS_ONE_ROLE": [
        "Service.NoAccess",
        "Service.NoRole",
        "Service.PublicRole",
        "Service.OtherRole",
    ],
    "INTERNAL_HAS_NO_ROUTE": ["Service.InternalRoute"],
    "VERB_FITS_EFFECTS": [
        "Service.EffectfulGet",
        "Service.HarmlessPost",
        "Service.UnexcusedPost",
    ],
    "PATH_NAMES_FIELDS": ["Service.LostPath"],
    "LIST_IS_PAGED": ["Service.ListAll", "Service.ListLoose"],
    "SHAPE_IS_KNOWN": [
        "SendResponse.loose_struct",
        "SendResponse.loose_any",
        "SendResponse.loose_value",
    ],
    "INPUT_IS_BOUNDED": [
        "SendRequest.loose_text",
        "SendRequest.email",
        "SendRequest.ignored",
        "SendRequest.false_uuid",
        "SendRequest.loose_bytes",
        "SendRequest.loose_list",
        "SendRequest.loose_items",
        "SendRequest.loose_map",
        "SendRequest.loose_values",
        "Nested.loose_nested",
        "Deep.loose_deep",
    ],
    "INPUT_ENUM_IS_DEFINED": ["SendRequest.loose_kind", "SendRequest.loose_kinds"],
    "INPUT_ONEOF_IS_DECIDED": ["SendRequest.loose_choice"],
}


def buf_lint(image: Path) -> str:
    """What buf says about a descriptor set; empty when it is clean."""
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run(
        [buf, "lint", image, "--config", ROOT / "buf.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 100), done.stderr
    return done.stdout


def full_name(short: str) -> str:
    return f"plexus.planted.v1.{short.replace('Service.', 'PlantedService.')}"


def test_buf_finds_nothing(compiled: Path) -> None:
    assert buf_lint(compiled) == ""


def test_buf_finds_a_missing_comment_and_a_wrong_name(spoil: Spoil) -> None:
    image = spoil(
        [
            ("agents/v1/agent.proto", "  // What people call it.\n", ""),
            ("agents/v1/agent.proto", "string model = 4", "string modelName = 4"),
        ]
    )
    said = buf_lint(image)
    assert 'Field "display_name" should have a non-empty comment' in said
    assert 'Field name "modelName" should be lower_snake_case' in said


def test_the_policy_check_finds_nothing(contracts: Contracts) -> None:
    assert [str(finding) for finding in policy.check(contracts)] == []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[policy.Finding]:
    """Everything the policy check says about the planted contract."""
    scratch = tmp_path_factory.mktemp("planted")
    roots = copy_contracts(scratch)
    (roots / "plexus" / "planted" / "v1").mkdir(parents=True)
    (roots / "plexus" / "planted" / "v1" / "defects.proto").write_text(PLANTED.read_text())
    descriptor_set(roots, scratch / "planted.binpb")
    findings = policy.check(Contracts.read(scratch / "planted.binpb"))
    return [each for each in findings if each.subject.startswith("plexus.planted.")]


@pytest.mark.parametrize("rule", sorted(policy.RULES))
def test_the_policy_check_finds_each_planted_defect_and_no_more(
    rule: str, found: list[policy.Finding]
) -> None:
    subjects = {finding.subject for finding in found if finding.rule == rule}
    assert subjects == {full_name(short) for short in DEFECTS[rule]}


def test_a_finding_says_where_and_how_to_mend_it(found: list[policy.Finding]) -> None:
    (finding,) = [each for each in found if each.subject == full_name("Service.LostPath")]
    assert finding.path == "plexus/planted/v1/defects.proto"
    assert PLANTED.read_text().splitlines()[finding.line - 1].strip().startswith("rpc LostPath(")
    assert "name one of its fields" in str(finding)
