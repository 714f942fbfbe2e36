"""A key has one effect, whoever repeats it, how often, at once, and through which replica."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.callers import Grpc
from tests.e2e.conftest import sign_up
from tests.faults.effects import Key, crowd, findings, rush_all
from tests.faults.suite import FULL, Suite, at_most, running, sized
from tests.faults.world import FaultyMesh
from tests.services.llm.scripted_openai import ScriptedOpenAi, good

# The mesh takes four times as long for each, and has the same races a hundred times as well.
_KEYS = {"embedded": sized(6, 900), "mesh": sized(6, 100)}
_SECONDS = {"embedded": at_most(150.0), "mesh": at_most(90.0)}
_CALLERS = 100
_RIVALS = 10
_AT_ONCE = 4
# Few, for each caller reads each of them; at a pace, so that callers come while it is written.
_WORDS = ("Once ", "only.")
_SHAPES = {"embedded": {}, "mesh": {"replicas": "agents:2"}}


async def found(
    suite: Suite, folder: Path, *defects: str, shape: str, keys: int, callers: int = _CALLERS
) -> list[str]:
    """Rush at so many keys; what was wrong."""
    every = [
        # Every other key is wanted for something else by some, at the same moment.
        Key(f"{suite.seed}-{number}", callers, _RIVALS if number % 2 else 0)
        for number in range(keys)
    ]
    async with ScriptedOpenAi() as model:
        model.script = good(_WORDS, pace=0.02)
        settings = {"llm_url": model.url, "llm_model": "scripted", **_SHAPES[shape]}
        mesh = FaultyMesh(folder, *defects, shape=shape, **settings)
        await mesh.start()
        caller = Grpc(mesh.url)
        try:
            await sign_up(caller)
            async with crowd(mesh, caller.token) as many:
                done = await rush_all(suite, many, every, _AT_ONCE, _SECONDS[shape])
            wrong = await findings(caller, mesh, model, done, "".join(_WORDS))
        finally:
            await caller.close()
            await mesh.kill()
    calls = sum(len(key.told) for key in done)
    rivals_won = sum(key.won == key.other for key in done)
    suite.say(
        f"{shape}: {len(done)} of {keys} keys, {calls} calls, rivals won {rivals_won}, "
        f"wrong: {len(wrong)}"
    )
    for each in wrong[:20]:
        suite.note("wrong", text=each)
    return wrong


@pytest.mark.timeout(300 + max(_SECONDS.values()) if FULL else 120)
@pytest.mark.parametrize("shape", _SHAPES)
async def test_one_key_is_one_effect(tmp_path: Path, shape: str) -> None:
    with running(f"effects-{shape}") as suite:
        assert await found(suite, tmp_path / "data", shape=shape, keys=_KEYS[shape]) == []


# Defects, the shape in which each shows, and how.
_SHOWN = {
    "keys_are_forgotten": ("embedded", {"effects", "paid", "replies", "mismatch"}),
    "payloads_are_not_compared": ("embedded", {"mismatch"}),
    "repeats_get_the_rest": ("embedded", {"replies"}),
    "keys_of_each_process": ("mesh", {"effects", "paid", "replies"}),
}


@pytest.mark.timeout(180)
async def test_a_planted_defect_shows(tmp_path: Path) -> None:
    with running("effects-planted") as suite:
        for defect in suite.some(_SHOWN, 1):
            shape, kinds = _SHOWN[defect]
            wrong = await found(suite, tmp_path / defect, defect, shape=shape, keys=2, callers=20)
            assert kinds <= {each.partition(":")[0] for each in wrong}, (defect, wrong)
