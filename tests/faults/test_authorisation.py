"""Every RPC, with every credential and every defect of one, by every way in and trick of path.

What must happen is worked out from the contracts' options; the matrix that is tried must equal it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import authorisation
from tests.faults.authorisation import Attempt, Finding
from tests.faults.credentials import credentials
from tests.faults.rpcs import rpcs
from tests.faults.suite import FULL, Suite, each, running
from tests.faults.valid import broken, valid
from tests.faults.world import FaultyMesh, up

_PLAIN, _TRICKED = 1500, 1000
_TRICKSTERS = ("none", "expired", "user viewer", "user owner")


async def matrix(
    suite: Suite, mesh: FaultyMesh, wanted: Callable[[Attempt], bool] | None = None
) -> tuple[list[Finding], Counter[str]]:
    """Try the matrix, or a part of it; what differs, and how often each end was met."""
    mouth = mesh.mouth()
    tried = await credentials(mesh, mouth)
    cells: list[Attempt] = suite.some(authorisation.plain(tried), _PLAIN)
    tricksters = [each for each in tried if each.name in _TRICKSTERS]
    assert len(tricksters) == len(_TRICKSTERS)
    cells += suite.some(authorisation.tricked(tricksters), _TRICKED)
    if wanted is not None:
        cells = list(filter(wanted, authorisation.plain(tried)))
    suite.chance.shuffle(cells)
    found: list[Finding] = []
    ends: Counter[str] = Counter()

    async def attempt(cell: Attempt) -> None:
        finding = await authorisation.attempt(mouth, suite, cell)
        ends[", ".join(sorted(cell.expected))] += 1
        if finding is not None:
            found.append(finding)

    await each(cells, attempt)
    await mouth.close()
    suite.say(f"{len(cells)} cells, {len(tried)} credentials, {len(rpcs())} RPCs: {dict(ends)}")
    return found, ends


def test_requests_to_try_with_hold_the_rules() -> None:
    """A request that breaks a rule might be refused for that, and prove nothing."""
    assert [breach for rpc in rpcs() for breach in broken(valid(rpc.request))] == []


@pytest.mark.timeout(1800 if FULL else 120)
async def test_the_matrix_is_what_the_contracts_say(tmp_path: Path) -> None:
    with running("authorisation") as suite:
        async with up(tmp_path / "data") as mesh:
            found, ends = await matrix(suite, mesh)
        assert not found, "\n".join(map(str, found[:40]))
        # A matrix of refusals alone, or without any, would try nothing.
        assert {"allowed", "denied", "unauthenticated", "nowhere"} <= ends.keys()


# Each defect, and what a cell looks like that shows it.
_SHOWN: dict[str, Callable[[Attempt], bool]] = {
    "role_is_too_low": lambda cell: cell.rpc.name == "ListAuditEntries",
    "public_by_mistake": lambda cell: cell.rpc.name == "ListModels" and cell.way == "direct",
    "audience_is_ignored": lambda cell: (
        cell.credential.name == "other audience" and cell.way == "direct"
    ),
    "revoked_is_good": lambda cell: cell.credential.name in ("revoked key", "login at an end"),
    "edge_keeps_assertions": lambda cell: (
        cell.rpc.access == "permission" and "a true one" in cell.credential.name
    ),
    "internal_has_a_route": lambda cell: cell.rpc.name == "GetWindow" and cell.way == "grpc",
    "validation_comes_first": lambda cell: cell.rpc.name == "GetSession" and cell.way == "direct",
}


@pytest.mark.timeout(1800 if FULL else 120)
async def test_every_planted_defect_shows(tmp_path: Path) -> None:
    with running("authorisation-planted") as suite:
        async with up(tmp_path / "data", *_SHOWN) as mesh:
            shown = _SHOWN.values()
            found, _ = await matrix(suite, mesh, lambda cell: any(show(cell) for show in shown))
        cells = [finding.attempt for finding in found]
        unseen = [name for name, shows in _SHOWN.items() if not any(map(shows, cells))]
        assert not unseen, unseen


@pytest.mark.parametrize("lack", ["policy", "role", "deadline"])
async def test_a_new_rpc_without_a_policy_does_not_start(tmp_path: Path, lack: str) -> None:
    mesh = FaultyMesh(tmp_path / "data", f"rpc_without_{lack}")
    wanted = "which role" if lack == "role" else "deadline" if lack == "deadline" else "permission"
    with pytest.raises(AssertionError, match=f"(?s)did not start.*ForgottenRpc.*{wanted}"):
        await mesh.start()
